"""What is measured during training: `evaluators` of the section."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from agenttuning_plugin.config.base import StrictModel
from dataset_builders.environments import EnvironmentSpec, load_environment
from dataset_builders.errors import ConfigError
from evaluators.tasks.registry import BENCHMARKS, LM_EVAL, check_options, is_benchmark


class _Scheduled(StrictModel):
    every: int | None = Field(
        default=None,
        ge=1,
        description="Optimizer steps between runs; if left out, that of `evaluation`.",
    )
    at_start: bool = Field(default=True, description="Run before the first step, as the base.")
    at_end: bool = Field(default=True, description="Run after the last step.")


class AgentTaskConfig(_Scheduled):
    """Plays tasks of an environment with the model in training."""

    type: Literal["agent_task"]
    environment: str = Field(default="database", description="Name of the environment.")
    split: str = Field(default="test", description="Split whose tasks are played.")
    num_tasks: int = Field(
        default=32, ge=1, description="Number of tasks, the first ones of the split."
    )
    batch_size: int = Field(default=16, ge=1, description="Episodes played at once.")
    max_new_tokens: int | None = Field(
        default=None, ge=1, description="Longest turn in tokens; the benchmark's if left out."
    )
    prompt: Literal["own", "published"] = Field(
        default="own",
        description="Words around the environment: ours, or those of an AgentInstruct copy.",
    )
    agentinstruct: str | None = Field(
        default=None, description="Where that copy is: file, folder or hub id."
    )
    data: str | None = Field(
        default=None, description="Folder of the environment's data, where it needs one."
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Further settings of the environment, such as `backend: mariadb`.",
    )

    @model_validator(mode="after")
    def _options_fit(self) -> AgentTaskConfig:
        self.spec().check_options()
        return self

    @property
    def key(self) -> str:
        """Name of its figures."""
        return self.environment if self.split == "test" else f"{self.environment}_{self.split}"

    def spec(self) -> EnvironmentSpec:
        """The environment as it is to be played.

        Raises:
            ConfigError: No environment has this name, or its data is named twice.
        """
        if self.data is not None and "data" in self.options:
            raise ConfigError("options.data: found with data, expected one of the two")
        return load_environment(
            self.environment,
            prompt=self.prompt,
            agentinstruct=self.agentinstruct,
            **{"data": self.data, **self.options},
        )


class GeneralLossConfig(_Scheduled):
    """Measures the loss on the general conversations held out of training."""

    type: Literal["general_loss"]

    @property
    def key(self) -> str:
        """Name of its figures."""
        return "general"


class ReplayConfig(_Scheduled):
    """Reads expert trajectories with the model: seconds, where playing takes minutes."""

    type: Literal["replay"]
    data: str | None = Field(
        default=None,
        description="Trajectories that training does not see: file, folder or hub id; if left "
        "out, the oracle's in test tasks of `environment`.",
    )
    environment: str = Field(
        default="database", description="Environment whose oracle plays, without `data`."
    )
    num_trajectories: int = Field(default=64, ge=1, description="Number of trajectories.")
    max_length: int = Field(default=4096, ge=1, description="Longest of them in tokens.")

    @field_validator("environment")
    @classmethod
    def _is_known(cls, value: str) -> str:
        return load_environment(value).name

    @property
    def key(self) -> str:
        """Name of its figures."""
        return "replay"


class BenchmarkConfig(_Scheduled):
    """A task of the paper's tables, as `agenttuning evaluate` measures it."""

    type: Literal["benchmark"]
    name: str = Field(
        description="Name of the task, such as `mmlu` or `science_world`; `lm_eval/TASK` is any "
        "task of lm_eval."
    )

    @field_validator("name")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if not is_benchmark(value):
            known = [benchmark.name for benchmark in BENCHMARKS]
            raise ValueError(f"expected one of {', '.join(known)}, {LM_EVAL}TASK")
        return value

    limit: int | None = Field(
        default=None, ge=1, description="Items of it, the same ones every time; all if left out."
    )
    data: str | None = Field(
        default=None, description="Folder with a folder of data for each task."
    )
    batch_size: int = Field(default=16, ge=1, description="Episodes or prompts at once.")
    max_new_tokens: int | None = Field(
        default=None, ge=1, description="Shorter answers than the task allows, for trials."
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Further settings of the task."
    )
    judge: dict[str, Any] | None = Field(
        default=None,
        description="Judging model: `model`, `base_url`, `api_key_env`, `temperature`, "
        "`token_field`, `request` (further fields).",
    )

    @model_validator(mode="after")
    def _options_fit(self) -> BenchmarkConfig:
        check_options({self.name: self.options})
        return self

    @property
    def key(self) -> str:
        """Name of its figures."""
        return self.name.replace("/", "_")


EvaluatorConfig = Annotated[
    AgentTaskConfig | GeneralLossConfig | ReplayConfig | BenchmarkConfig,
    Field(discriminator="type"),
]
