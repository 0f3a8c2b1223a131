"""Schedules of evaluators during training, and the settings they share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SkipValidation, ValidationError

from dataset_builders.errors import ConfigError
from dataset_builders.settings import problems_of, settings
from evaluators.evaluator import EvalResult, Evaluator
from evaluators.stats.paired import is_loss
from evaluators.training.floors import BestCheckpoint, ScoreFloor


class Cadence(BaseModel):
    """When an evaluator runs."""

    model_config = ConfigDict(extra="forbid")

    every: int | None = Field(
        default=None,
        ge=1,
        description="Optimizer steps between runs; default: that of `evaluation`.",
    )
    at_start: bool = Field(default=True, description="Run before the first step, as the baseline.")
    at_end: bool = Field(default=True, description="Run after the last step.")


class Schedule(Cadence):
    """An evaluator and when it runs.

    Args:
        evaluator: What runs.
        when: `every`, `at_start` and `at_end`, see `Cadence`, and `limit`: the maximum number of
            items, the first ones; all by default. `settings` identifies what the evaluator was
            made from: only then can runs share its step 0.

    Raises:
        ConfigError: One of them is unknown or out of range.
    """

    evaluator: SkipValidation[Evaluator]
    limit: int | None = None
    settings: str = ""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    def __init__(self, evaluator: Evaluator, **when: Any) -> None:
        values: dict[str, Any] = {"evaluator": evaluator, **when}
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(problems_of(type(self), error)) from None

    def runs_from(self, step: int, steps: int, beside: int | None = None) -> int:
        """Count the runs at a step and later.

        Args:
            step: Optimizer steps made.
            steps: Optimizer steps of the whole run.
            beside: A second cadence: that of the trainer's evaluations, if it runs at these.
        """
        times = {step}
        for every in filter(None, (self.every, beside)):
            times |= set(range(step - step % every + every, steps + 1, every))
        if self.at_end:
            times.add(steps)
        return len(times)


@settings
class EvaluationPolicy:
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
    stop_if_general_drops: ScoreFloor | None = Field(
        default=None, description="End training when a general score is lost."
    )
    best: BestCheckpoint | None = Field(
        default=None,
        description="Record the best step in `best.json` and as `eval_agenttuning_best_score`, "
        "which `metric_for_best_model` can name.",
    )
    watchdog: float = Field(
        default=1800.0,
        gt=0,
        description="Heartbeat timeout in seconds: a process of a distributed run that is silent "
        "for longer ends the run, with a line that names it and the evaluator.",
    )
    shared_base: str | None = Field(
        default=None,
        description="Folder in which runs of the same base share their evaluation at step 0, so "
        "that it is measured once; `agenttuning sweep` sets it.",
    )

    @property
    def floors(self) -> tuple[ScoreFloor, ...]:
        """Those of both rules."""
        rules = self.stop_if_general_drops, None if self.best is None else self.best.floor
        return tuple(floor for floor in rules if floor is not None)

    def scheduled(self, schedule: Schedule) -> Schedule:
        """A schedule with this policy's cadence, where it names none of its own."""
        every = self.every_generative if schedule.evaluator.generates else self.every
        return schedule.model_copy(update={"every": schedule.every or every})

    def check(
        self,
        names: Sequence[str],
        without_base: Collection[str] = (),
        primary: Mapping[str, str] | None = None,
    ) -> None:
        """Check the rules against the evaluators: one that names none would never act.

        Args:
            names: Names of the evaluators.
            without_base: Those that do not run before the first step.
            primary: Main figure by name, as far as it is known.

        Raises:
            ConfigError: Two have one name; a rule names an evaluator that does not run, or whose
                score has no base; or the best step is to be chosen by a loss, the highest of all.
        """
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(
                f"evaluators: found {twice[0]!r} twice, expected different names: their figures "
                "would overwrite each other"
            )
        named: dict[str, ScoreFloor | BestCheckpoint | None] = {
            "stop_if_general_drops.evaluator": self.stop_if_general_drops,
            "best.floor.evaluator": self.best and self.best.floor,
            "best.evaluator": self.best,
        }
        for where, rule in named.items():
            if rule is not None and rule.evaluator not in names:
                raise ConfigError(
                    f"evaluation.{where}: found {rule.evaluator!r}, expected one of the "
                    f"evaluators: {', '.join(sorted(names)) or 'none is listed'}"
                )
            if isinstance(rule, ScoreFloor) and rule.evaluator in without_base:
                raise ConfigError(
                    f"evaluation.{where}: found {rule.evaluator!r} with at_start false, expected "
                    "true: a floor is one below the base"
                )
        if self.best is not None and is_loss((primary or {}).get(self.best.evaluator, "")):
            raise ConfigError(
                f"evaluation.best.evaluator: found {self.best.evaluator!r}, a loss, expected an "
                "evaluator whose main figure is better the higher it is"
            )


def check_policy(
    policy: EvaluationPolicy, schedules: Sequence[Schedule], unavailable: Sequence[EvalResult] = ()
) -> None:
    """Check a policy's rules against evaluators that are made; see `EvaluationPolicy.check`."""
    policy.check(
        [s.evaluator.name for s in schedules] + [result.evaluator for result in unavailable],
        [s.evaluator.name for s in schedules if not s.at_start],
        {s.evaluator.name: s.evaluator.primary for s in schedules},
    )
