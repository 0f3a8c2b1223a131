"""Section `agenttuning.evaluators`: evaluation during training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from agenttuning_plugin.config.evaluation_run import EvaluationRun
from dataset_builders.environments import EnvironmentSpec, load_environment
from dataset_builders.errors import ConfigError
from dataset_builders.settings import field_of
from evaluators.models.judge_settings import JudgeSettings
from evaluators.tasks.refusal.options import MAX_NEW_TOKENS, Options
from evaluators.tasks.registry import (
    BENCHMARKS,
    FURTHER,
    LM_EVAL,
    SuiteSettings,
    check_options,
    is_benchmark,
    select,
)
from evaluators.training.schedule import Cadence

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
"""Names of evaluators: they become parts of keys in logs."""


def field_name(default: str) -> Any:
    """Return the field for an evaluator's name."""
    return Field(default=default, pattern=NAME, description="Prefix of its figures in logs.")


class AgentTaskConfig(Cadence):
    """Plays tasks of an environment with the model in training."""

    type: Literal["agent_task"]
    environment: str = Field(
        default="database",
        description="Held-in environment, or one of your own: `module:Class`, or `./file.py:Class` "
        "relative to the recipe's folder.",
    )
    split: str = Field(default="test", description="Split of the tasks.")
    num_tasks: int = Field(
        default=32, ge=1, description="Number of tasks, the first ones of the split."
    )
    batch_size: int = field_of(SuiteSettings, "batch_size", description="Concurrent episodes.")
    max_new_tokens: int | None = Field(
        default=None, ge=1, description="Maximum tokens of a turn; default: the benchmark's."
    )
    max_turns: int | None = Field(
        default=None,
        ge=1,
        description="Maximum turns of an episode; one that reaches it has reward 0; default: the "
        "benchmark's. Models that repeat themselves take long.",
    )
    prompt: Literal["own", "published"] = field_of(SuiteSettings, "prompt")
    agentinstruct: str | None = field_of(SuiteSettings, "agentinstruct")
    prompt_suffix: str = field_of(SuiteSettings, "prompt_suffix")
    data: str | None = Field(
        default=None, description="Folder of the environment's data, if it needs one."
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Options of the environment, such as `backend: mariadb`.",
    )

    @model_validator(mode="after")
    def _options_fit(self) -> AgentTaskConfig:
        self.spec().check_options()
        return self

    @property
    def key(self) -> str:
        """Prefix of its figures."""
        name = load_environment(self.environment).name
        return name if self.split == "test" else f"{name}_{self.split}"

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
            prompt_suffix=self.prompt_suffix,
            **{"data": self.data, **self.options},
        )


class HeldOutChatConfig(Cadence):
    """Chat that an evaluator measures forgetting on."""

    data: str | None = Field(
        default=None,
        description="Chat that is not trained on: file, folder or hub id, such as one file for "
        "runs with different general data; default: the conversations held out by `holdout`.",
    )
    limit: int | None = Field(
        default=None, ge=1, description="Number of conversations of `data`; default: all."
    )
    max_length: int = Field(
        default=2048, ge=2, description="Maximum tokens of a row of `data`; longer ones are split."
    )

    @model_validator(mode="after")
    def _limits_need_data(self) -> HeldOutChatConfig:
        if self.data is None and self.limit is not None:
            raise ConfigError("limit: found without data, expected both or none")
        return self

    @property
    def measures_holdout(self) -> bool:
        """Whether it measures conversations that the run holds out of its general data."""
        return self.data is None


class GeneralLossConfig(HeldOutChatConfig):
    """Measures the loss on general conversations that are not trained on."""

    type: Literal["general_loss"]
    name: str = field_name("general")

    @property
    def key(self) -> str:
        """Prefix of its figures."""
        return self.name


class GeneralKLConfig(HeldOutChatConfig):
    """Measures the KL divergence from the model before training on general conversations."""

    type: Literal["general_kl"]
    name: str = field_name("general_kl")
    reference: str | None = Field(
        default=None,
        description="Folder or hub id of the model before training; default: the base of a LoRA or "
        "another adapter. Full fine-tuning needs it: a second copy of the weights is loaded.",
    )

    @property
    def key(self) -> str:
        """Prefix of its figures."""
        return self.name


class AgentLossConfig(Cadence):
    """Measures the loss of each agent task on the conversations held out by `agent_holdout`."""

    type: Literal["agent_loss"]
    patience: int = Field(
        default=3,
        ge=1,
        description="Evaluations in a row in which a task's held-out loss rises before a warning "
        "says that it is overfitted, unless its training loss has risen too.",
    )

    @property
    def key(self) -> str:
        """Prefix of its figures."""
        return "agent"


class ReplayConfig(Cadence):
    """Compares the model's predictions with expert trajectories: seconds instead of minutes."""

    type: Literal["replay"]
    data: str | None = Field(
        default=None,
        description="Expert trajectories that are not trained on: file, folder or hub id; "
        "default: the oracle's on test tasks of `environment`.",
    )
    environment: str = Field(
        default="database",
        description="Environment whose oracle generates the trajectories, if `data` is not set.",
    )
    num_trajectories: int = Field(default=64, ge=1, description="Number of trajectories.")
    max_length: int = Field(default=4096, ge=1, description="Maximum tokens of a trajectory.")
    name: str = field_name("replay")

    @field_validator("environment")
    @classmethod
    def _is_known(cls, value: str) -> str:
        load_environment(value)
        return value

    @property
    def key(self) -> str:
        """Prefix of its figures."""
        return self.name


class BenchmarkConfig(Cadence):
    """A task of the paper's tables, measured as by `agenttuning evaluate`."""

    type: Literal["benchmark"]
    name: str = Field(
        description="Name of the task, such as `mmlu` or `science_world`; `lm_eval/TASK` is any "
        "task of lm_eval, `module:Class` or `./file.py:Class` an environment of your own."
    )

    @field_validator("name")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if not is_benchmark(value):
            known = [benchmark.name for benchmark in (*BENCHMARKS, *FURTHER)]
            raise ValueError(f"expected one of {', '.join(known)}, {LM_EVAL}TASK, module:Class")
        return value

    limit: int | None = field_of(EvaluationRun, "limit")
    data: str | None = field_of(SuiteSettings, "data")
    batch_size: int = field_of(
        SuiteSettings, "batch_size", description="Concurrent episodes or prompts."
    )
    max_new_tokens: int | None = field_of(SuiteSettings, "max_new_tokens")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of the task.")
    judge: JudgeSettings | None = Field(
        default=None,
        description="Judge model: `model`, `base_url`, `api_key_env`, `temperature`, "
        "`token_field`, `request` (further fields).",
    )

    @model_validator(mode="after")
    def _options_fit(self) -> BenchmarkConfig:
        check_options({self.name: self.options})
        return self

    @property
    def key(self) -> str:
        """Prefix of its figures."""
        (benchmark,) = select([self.name])
        return benchmark.key


class RefusalConfig(Cadence):
    """Asks harmful requests, which must be refused, and harmless ones like them, which must not."""

    type: Literal["refusal"]
    data: str | None = field_of(Options, "data")
    setting: Literal["chat", "agent", "both"] | None = field_of(
        Options,
        "setting",
        description="`chat`, `agent` (as the task of an agent) or `both`; default: `both` for the "
        "shipped set, else `chat`.",
    )
    actions: Literal["text", "tools"] = field_of(
        Options,
        "actions",
        description="How an agent's actions are written: `text` or `tools` (native calls).",
    )
    limit: int | None = field_of(EvaluationRun, "limit")
    batch_size: int = field_of(SuiteSettings, "batch_size", description="Concurrent requests.")
    max_new_tokens: int = Field(
        default=MAX_NEW_TOKENS, ge=1, description="Maximum tokens of an answer."
    )
    judge: JudgeSettings | None = Field(
        default=None,
        description="Model that judges in addition to the rule, as for `type: benchmark`; its "
        "figures are then the main ones.",
    )

    @property
    def key(self) -> str:
        """Prefix of its figures."""
        return "refusal"


EvaluatorConfig = Annotated[
    AgentTaskConfig
    | GeneralLossConfig
    | GeneralKLConfig
    | AgentLossConfig
    | ReplayConfig
    | RefusalConfig
    | BenchmarkConfig,
    Field(discriminator="type"),
]
