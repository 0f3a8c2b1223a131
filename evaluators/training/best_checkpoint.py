"""Support for `metric_for_best_model` set to a figure of an evaluator."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dataset_builders.errors import ConfigError
from evaluators.tasks.overall import overall_key
from evaluators.tasks.registry import BENCHMARKS, SUITES
from evaluators.training.floors import BEST_KEY
from evaluators.training.schedule import EvaluationPolicy, Schedule

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BestModelFigure:
    """The figure by which the trainer selects its best checkpoint.

    Attributes:
        key: Its key among the trainer's metrics; "" if it is not ours.
        evaluators: Names of the evaluators it needs.
        greater: Whether higher is better.
    """

    key: str
    evaluators: frozenset[str]
    greater: bool

    @classmethod
    def of(
        cls,
        args: TrainingArguments,
        schedules: Sequence[Schedule],
        policy: EvaluationPolicy,
        unavailable: Sequence[str] = (),
    ) -> BestModelFigure:
        """Read the figure from a trainer's settings.

        Raises:
            ConfigError: The figure is the best score under a floor, and no floor is set; or a
                suite's Overall, and not all tasks of the suite are measured.
        """
        key = args.metric_for_best_model or ""
        key = key if key.startswith("eval_") else f"eval_{key}"
        if key == BEST_KEY:
            if policy.best is None:
                raise ConfigError(
                    f"metric_for_best_model: found {BEST_KEY}, expected `best` among the settings "
                    "of the evaluation, which defines it"
                )
            names = frozenset({policy.best.evaluator, policy.best.floor.evaluator})
        else:
            ours = [s.evaluator.name for s in schedules]
            ours += unavailable
            # The longest name: "database" is a prefix of "database_dev".
            fitting = sorted((n for n in ours if key.startswith(f"eval_{n}_")), key=len)
            names = _tasks_of_overall(key, ours) or frozenset(fitting[-1:])
        if names and str(getattr(args.eval_strategy, "value", args.eval_strategy)) == "no":
            LOG.warning(
                "metric_for_best_model: %s has no effect with eval_strategy `no`: the "
                "trainer chooses a checkpoint only when it evaluates; set eval_strategy and "
                "eval_steps",
                key,
            )
        return cls(key if names else "", names, bool(args.greater_is_better))

    def comes_from(self, schedule: Schedule) -> bool:
        """Whether an evaluator must run when the trainer evaluates."""
        return schedule.evaluator.name in self.evaluators

    def runs_from(self, schedule: Schedule, args: TrainingArguments, state: TrainerState) -> int:
        """Count an evaluator's runs at this step and later, including those for this figure."""
        every = None
        if self.comes_from(schedule) and args.eval_strategy == "epoch":
            every = max(1, math.ceil(state.max_steps / max(1, state.num_train_epochs)))
        elif self.comes_from(schedule) and args.eval_strategy == "steps":
            every = int(state.eval_steps or 0) or None
        return schedule.runs_from(state.global_step, state.max_steps, every)

    def fill(self, metrics: dict[str, float], step: int) -> None:
        """Set the figure to the worst value if it could not be measured.

        Also if it is NaN: the trainer would keep a first NaN for ever.
        """
        if self.key and math.isnan(metrics.get(self.key, math.nan)):
            LOG.warning("step %d cannot become the best one: found no %s", step, self.key)
            metrics[self.key] = -math.inf if self.greater else math.inf


def _tasks_of_overall(key: str, ours: Sequence[str]) -> frozenset[str]:
    """Return the tasks behind a suite's Overall; empty for other figures."""
    suite = next((suite for suite in SUITES if overall_key(suite) == key), None)
    tasks = [each.name for each in BENCHMARKS if each.suite == suite]
    if missing := [name for name in tasks if name not in ours]:
        raise ConfigError(
            f"metric_for_best_model: found {key}, expected all its tasks among the evaluators; "
            f"{', '.join(missing)} are not"
        )
    return frozenset(tasks)


def best_is_loaded(args: TrainingArguments, state: TrainerState) -> bool:
    """Whether, at the end of training, the model has the weights of an earlier step.

    Their figures would be recorded as the last step's.
    """
    chosen = args.load_best_model_at_end and state.best_model_checkpoint is not None
    return bool(chosen and state.best_global_step != state.global_step)


def go_before_early_stopping(trainer: Trainer, callback: TrainerCallback) -> None:
    """Move a callback before `EarlyStoppingCallback`, which needs its figure.

    `EarlyStoppingCallback` disables itself, with a warning, if the figure is not in the metrics
    yet, and it comes first if the trainer was constructed with it.
    """
    from transformers import EarlyStoppingCallback

    handler = trainer.callback_handler
    stops = [isinstance(each, EarlyStoppingCallback) for each in handler.callbacks]
    if True not in stops or callback not in handler.callbacks[stops.index(True) :]:
        return
    others = [each for each in handler.callbacks if each is not callback]
    # A new list: the handler may be iterating over the old one.
    first = stops.index(True)
    handler.callbacks = [*others[:first], callback, *others[first:]]
