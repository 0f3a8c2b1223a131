"""What is measured during training: `evaluators` and `evaluation` of the section."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from agenttuning_plugin.config.base import StrictModel
from dataset_builders.environments import EnvironmentSpec, load_environment


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

    @property
    def key(self) -> str:
        """Name of its figures."""
        return self.environment if self.split == "test" else f"{self.environment}_{self.split}"

    def spec(self) -> EnvironmentSpec:
        """The environment as it is to be played.

        Raises:
            ConfigError: No environment has this name.
        """
        return load_environment(
            self.environment,
            prompt=self.prompt,
            agentinstruct=self.agentinstruct,
            data=self.data,
            **self.options,
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

    @property
    def key(self) -> str:
        """Name of its figures."""
        return "replay"


class BenchmarkConfig(_Scheduled):
    """A task of the paper's tables, as `agenttuning evaluate` measures it."""

    type: Literal["benchmark"]
    name: str = Field(description="Name of the task, such as `mmlu` or `science_world`.")

    @field_validator("name")
    @classmethod
    def _is_known(cls, value: str) -> str:
        from evaluators.tasks.registry import BENCHMARKS

        known = [benchmark.name for benchmark in BENCHMARKS]
        if value not in known:
            raise ValueError(f"expected one of {', '.join(known)}")
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

    @property
    def key(self) -> str:
        """Name of its figures."""
        return self.name


EvaluatorConfig = Annotated[
    AgentTaskConfig | GeneralLossConfig | ReplayConfig | BenchmarkConfig,
    Field(discriminator="type"),
]


class FloorConfig(StrictModel):
    """How much of a general score may be lost against step 0."""

    evaluator: str = Field(
        default="general", description="Whose main figure: `general` for the loss, or `mmlu`."
    )
    by: float = Field(
        default=0.05, ge=0, description="Loss that is borne, as a share of the base's score."
    )
    p: float = Field(
        default=0.05, gt=0, lt=1, description="Level at which the loss has to be significant."
    )


class BestConfig(StrictModel):
    """Looks for the best step by a held-in score, under a floor on a general one."""

    evaluator: str = Field(default="database", description="Whose main figure is the best.")
    floor: FloorConfig = Field(
        default_factory=FloorConfig, description="What the general score has to keep."
    )


class EvaluationConfig(StrictModel):
    """What holds for all evaluators of a run."""

    every: int | None = Field(
        default=None,
        ge=1,
        description="Optimizer steps between runs of evaluators that generate no text (losses, "
        "replay) and name no `every`; none in between if left out.",
    )
    every_generative: int | None = Field(
        default=None,
        ge=1,
        description="The same for evaluators that generate text: they play episodes or write "
        "answers.",
    )
    max_time_share: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Largest share of wall-clock time that evaluation takes, by measuring fewer "
        "items, the first of a fixed order; no limit if left out.",
    )
    strict: bool = Field(
        default=False,
        description="End training where an evaluator breaks or cannot run here; else it is "
        "recorded with its reason.",
    )
    stop_if_general_drops: FloorConfig | None = Field(
        default=None, description="End training when a general score is lost."
    )
    best: BestConfig | None = Field(
        default=None,
        description="Record the best step in `best.json` and as `eval_agenttuning_best_score`, "
        "which `metric_for_best_model` can name.",
    )
    watchdog: float = Field(
        default=1800.0,
        gt=0,
        description="Seconds without a sign of life after which a process of a distributed run "
        "is given up, with a line that names it and the evaluator.",
    )

    def check(self, evaluators: Sequence[EvaluatorConfig]) -> None:
        """Check the evaluators' names against one another and against the rules.

        Raises:
            ValueError: Two have one name, or a rule names one that is not listed, or a floor
                one that has no base.
        """
        keys = [evaluator.key for evaluator in evaluators]
        no_base = [evaluator.key for evaluator in evaluators if not evaluator.at_start]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise ValueError(
                f"evaluators: found {twice[0]!r} twice, expected different names: their figures "
                "would overwrite each other"
            )
        named = {
            "stop_if_general_drops.evaluator": self.stop_if_general_drops,
            "best.floor.evaluator": self.best.floor if self.best else None,
            "best.evaluator": self.best,
        }
        for where, rule in named.items():
            if rule is not None and rule.evaluator not in keys:
                raise ValueError(
                    f"evaluation.{where}: found {rule.evaluator!r}, expected one of the "
                    f"evaluators: {', '.join(sorted(keys)) or 'none is listed'}"
                )
            if isinstance(rule, FloorConfig) and rule.evaluator in no_base:
                raise ValueError(
                    f"evaluation.{where}: found {rule.evaluator!r} with at_start false, expected "
                    "true: a floor is one below the base"
                )
