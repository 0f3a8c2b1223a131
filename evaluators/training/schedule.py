"""Schedules of evaluators during training, and the settings they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dataset_builders.errors import ConfigError
from evaluators.evaluator import EvalResult, Evaluator
from evaluators.stats.paired import LOWER_IS_BETTER
from evaluators.training.floors import BestCheckpoint, ScoreFloor


@dataclass(frozen=True, slots=True)
class Schedule:
    """When an evaluator runs.

    Attributes:
        evaluator: What runs.
        every: Optimizer steps between runs; None for no runs in between.
        at_start: Whether it runs before the first step, as the baseline.
        at_end: Whether it runs after the last step.
        limit: Maximum number of items, the first ones; all by default.
    """

    evaluator: Evaluator
    every: int | None = None
    at_start: bool = True
    at_end: bool = True
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 1:
            raise ConfigError(f"every: found {self.every}, expected at least 1 step")

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


@dataclass(frozen=True, slots=True)
class EvaluationPolicy:
    """What holds for all evaluators of a run.

    Attributes:
        max_time_share: Largest share of the run's wall-clock time that evaluation takes, by
            measuring fewer items; none for no limit.
        strict: Whether an evaluator that breaks ends training; else it is recorded.
        stop: Ends training when the general score has dropped so far.
        best: Looks for the best step under a floor on the general score.
        unavailable: Evaluators that cannot run here, and why.
        watchdog: Seconds without a sign of life after which a process of a distributed run is
            given up, with a line that names it and the evaluator.
    """

    max_time_share: float | None = None
    strict: bool = False
    stop: ScoreFloor | None = None
    best: BestCheckpoint | None = None
    unavailable: tuple[EvalResult, ...] = ()
    watchdog: float = 1800.0

    @property
    def floors(self) -> tuple[ScoreFloor, ...]:
        """Those of both rules."""
        rules = self.stop, None if self.best is None else self.best.floor
        return tuple(floor for floor in rules if floor is not None)

    def check(self, schedules: Sequence[Schedule]) -> None:
        """Check the rules against the evaluators: one that names none would never act.

        Raises:
            ConfigError: A rule names an evaluator that does not run, or whose score it has no
                base of; or the best step is to be chosen by a loss, the highest of all.
        """
        primary = {s.evaluator.name: s.evaluator.primary for s in schedules}
        known = {*primary, *(result.evaluator for result in self.unavailable)}
        named: dict[str, ScoreFloor | BestCheckpoint | None] = {
            "stop.evaluator": self.stop,
            "best.evaluator": self.best,
            "best.floor.evaluator": self.best and self.best.floor,
        }
        for where, rule in named.items():
            if rule is not None and rule.evaluator not in known:
                raise ConfigError(
                    f"{where}: found {rule.evaluator!r}, expected one of the evaluators: "
                    f"{', '.join(sorted(known)) or 'none is listed'}"
                )
        no_base = {s.evaluator.name for s in schedules if not s.at_start}
        for floor in self.floors:
            if floor.evaluator in no_base:
                raise ConfigError(
                    f"at_start of {floor.evaluator}: found false, expected true: a floor on its "
                    "score is one below its base"
                )
        if self.best is not None and primary.get(self.best.evaluator) in LOWER_IS_BETTER:
            raise ConfigError(
                f"best.evaluator: found {self.best.evaluator!r}, a loss, expected an evaluator "
                "whose main figure is better the higher it is"
            )
