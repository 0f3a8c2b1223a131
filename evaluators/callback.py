"""Evaluators inside training: when to run, and how the figures reach the log.

Works with any Hugging Face Trainer, Axolotl's and TRL's included.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from dataset_builders.errors import ConfigError
from evaluators.base import Evaluation, Evaluator, Subject
from evaluators.budget import TimeBudget
from evaluators.comparing import Baseline
from evaluators.guards import BEST_KEY, BestStep, GeneralFloor
from evaluators.moment import Moment, failed
from evaluators.results_file import write_record
from evaluators.run_records import forget_later, put_aside
from evaluators.scores import overall_figures
from evaluators.step_time import estimate_step_seconds

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When an evaluator runs.

    Attributes:
        evaluator: What runs.
        every: Optimizer steps between runs; none for no runs in between.
        at_start: Whether it runs before the first step: the base to compare with.
        at_end: Whether it runs after the last step.
        limit: The first so many items; all by default.
    """

    evaluator: Evaluator
    every: int | None = None
    at_start: bool = True
    at_end: bool = True
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 1:
            raise ConfigError(f"every: found {self.every}, expected at least 1 step")

    def runs_from(self, step: int, steps: int) -> int:
        """Times that it runs at a step and later, of a run with so many steps."""
        times = {step}
        if self.every:
            times |= set(range(step - step % self.every + self.every, steps + 1, self.every))
        if self.at_end:
            times.add(steps)
        return len(times)


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for all evaluators of a run.

    Attributes:
        max_time_share: Largest share of the run's wall-clock time that evaluation takes, by
            measuring fewer items; none for no limit.
        strict: Whether an evaluator that breaks ends training; else it is recorded.
        stop: Ends training when the general score has dropped so far.
        best: Looks for the best step under a floor on the general score.
        unavailable: Evaluators that cannot run here, and why.
        watchdog: Seconds that processes wait for one another, then all end with a line that
            names the evaluator.
    """

    max_time_share: float | None = None
    strict: bool = False
    stop: GeneralFloor | None = None
    best: BestStep | None = None
    unavailable: tuple[Evaluation, ...] = ()
    watchdog: float = 3600.0


class EvaluatorCallback(TrainerCallback):
    """Runs evaluators before, during and after training.

    Add it to a trainer with `EvaluatorCallback.install(trainer, schedules)`. Figures go
    to the trainer's log, and so to its trackers and `trainer_state.json`, under keys like
    `eval_database_success`; with every item also to `evaluations.jsonl` in the output
    folder, and with transcripts to `transcripts/`. The change of a main figure against step
    0 is logged beside it, `_change` and `_change_p`. A figure that `metric_for_best_model`
    names is measured whenever the trainer evaluates.

    Args:
        trainer: The trainer; a callback is not told which one calls it.
        schedules: Evaluators and when they run. At one step they run in this order.
        end_of_turn: Tokens beside eos that end a turn.
        policy: What holds for all of them.

    Raises:
        ConfigError: Two evaluators have one name.
    """

    def __init__(
        self,
        trainer: Trainer,
        schedules: Sequence[Schedule],
        end_of_turn: Sequence[str] = (),
        policy: Policy | None = None,
    ) -> None:
        self._trainer = trainer
        self._schedules = tuple(schedules)
        self._end_of_turn = tuple(end_of_turn)
        self._policy = policy or Policy()
        names = [schedule.evaluator.name for schedule in self._schedules]
        if len(set(names)) < len(names):
            raise ConfigError(
                f"evaluators: found {', '.join(names)}, expected different names: their figures "
                "would overwrite each other"
            )
        share = self._policy.max_time_share
        self._budget = None if share is None else TimeBudget(share)
        self._baseline = Baseline()
        self._last: dict[str, int] = {}
        self._figures: tuple[int, dict[str, float]] = (0, {})
        _refuse_sharded(trainer)

    @classmethod
    def install(
        cls,
        trainer: Trainer,
        schedules: Sequence[Schedule],
        end_of_turn: Sequence[str] = (),
        policy: Policy | None = None,
    ) -> EvaluatorCallback:
        """Make a callback and add it to the trainer."""
        callback = cls(trainer, schedules, end_of_turn, policy)
        trainer.add_callback(callback)
        return callback

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure the base, unless training resumes: then it was measured before.

        Measurements later than the checkpoint are forgotten: they will be made again.
        """
        if self._budget is not None:
            subject = self._subject()
            seconds = subject.gather([estimate_step_seconds(self._trainer, subject)])[0]
            self._budget.start(state.global_step, seconds)
        if state.global_step > 0:
            self._resume(state)
            return
        if state.is_world_process_zero:
            put_aside(self._folder)
            for result in self._policy.unavailable:
                LOG.warning("%s is not measured: %s", result.evaluator, result.error)
                write_record(self._folder, 0, result)
        self._run([s for s in self._schedules if s.at_start], state, control)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure on the cadence."""
        step = state.global_step
        self._run([s for s in self._schedules if s.every and step % s.every == 0], state, control)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Give the trainer this step's figures: it may choose the best checkpoint by one."""
        wanted = args.metric_for_best_model or ""
        wanted = wanted if wanted.startswith("eval_") else f"eval_{wanted}"
        self._run([s for s in self._schedules if self._gives(s, wanted)], state, control)
        step, figures = self._figures
        if metrics is not None and step == state.global_step:
            metrics.update(figures)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure the result, unless the cadence has just done so."""
        self._run([s for s in self._schedules if s.at_end], state, control)

    def _gives(self, schedule: Schedule, figure: str) -> bool:
        best = self._policy.best
        if figure == BEST_KEY and best is not None:
            return schedule.evaluator.name in (best.evaluator, best.floor.evaluator)
        return figure.startswith(f"eval_{schedule.evaluator.name}_")

    @property
    def _folder(self) -> Path:
        return Path(self._trainer.args.output_dir or ".")

    def _run(
        self, schedules: Sequence[Schedule], state: TrainerState, control: TrainerControl
    ) -> None:
        due = [s for s in schedules if self._last.get(s.evaluator.name) != state.global_step]
        if not due:
            return
        moment = Moment(
            self._subject(), self._folder, state.global_step, state.max_steps, self._shows(state)
        )
        results: dict[str, Evaluation] = {}
        for schedule in due:
            name = schedule.evaluator.name
            self._last[name] = state.global_step
            try:
                result = moment.measure(
                    schedule.evaluator, schedule.limit, self._budget, self._plan(state)
                )
            except Exception as error:
                if self._policy.strict:
                    raise
                LOG.warning("evaluator %s failed: %s", name, error, exc_info=True)
                result = failed(schedule.evaluator, error)
            results[name] = result
            self._publish(result, state, control)
        self._look(results, state, control)

    def _plan(self, state: TrainerState) -> dict[str, tuple[int | None, int, Evaluator]]:
        return {
            s.evaluator.name: (
                s.limit,
                s.runs_from(state.global_step, state.max_steps),
                s.evaluator,
            )
            for s in self._schedules
        }

    def _look(
        self, results: dict[str, Evaluation], state: TrainerState, control: TrainerControl
    ) -> None:
        """What the results of a step say together."""
        step, policy = state.global_step, self._policy
        changes = {name: c for name, r in results.items() if (c := self._baseline.change(r))}
        figures = overall_figures(results)
        if policy.best is not None:
            score = policy.best.look(step, results, changes)
            if score is not None:
                figures[BEST_KEY] = score
            if state.is_world_process_zero:
                policy.best.save(self._folder)
        if figures:
            self._log(figures, state, control)
        if policy.stop is not None and policy.stop.evaluator in changes:
            figure = results[policy.stop.evaluator].primary
            change = changes[policy.stop.evaluator]
            if policy.stop.broken(change, figure):
                LOG.warning(
                    "training stops at step %d: %s %s went from %.4f to %.4f (p %.3g)",
                    *(step, policy.stop.evaluator, figure),
                    *(change.before, change.after, change.p_value),
                )
                control.should_training_stop = True

    def _subject(self) -> Subject:
        from accelerate.utils import gather_object

        trainer, accelerator = self._trainer, self._trainer.accelerator
        return Subject(
            model=accelerator.unwrap_model(trainer.model),
            tokenizer=trainer.processing_class,
            end_of_turn=self._end_of_turn,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
            gather=gather_object,
            autocast=accelerator.autocast,
        )

    def _shows(self, state: TrainerState) -> bool:
        return bool(state.is_world_process_zero and not self._trainer.args.disable_tqdm)

    def _publish(self, result: Evaluation, state: TrainerState, control: TrainerControl) -> None:
        step = state.global_step
        if not step:
            self._baseline.add(result)
        figures = result.log()
        change = self._baseline.change(result) if step else None
        if change is not None:
            key = f"eval_{result.evaluator}_{result.primary}_change"
            figures |= {key: change.value, f"{key}_p": change.p_value}
        self._log(figures, state, control)
        if state.is_world_process_zero:
            write_record(self._folder, step, result)

    def _log(self, figures: dict[str, float], state: TrainerState, control: TrainerControl) -> None:
        from transformers import Trainer

        step, known = self._figures
        earlier = known if step == state.global_step else {}
        self._figures = state.global_step, earlier | figures
        # Trainer.log on the base class: TRL's own adds its running averages and clears
        # them, so the training log of this step would lose them. Logging also resets
        # should_log, which would swallow that very log.
        should_log = control.should_log
        Trainer.log(self._trainer, figures)
        control.should_log = should_log

    def _resume(self, state: TrainerState) -> None:
        """Take up what was measured up to the checkpoint, on every rank the same."""
        from accelerate.utils import broadcast_object_list

        found: list[Any] = [[]]
        if state.is_world_process_zero:
            found = [forget_later(self._folder, state.global_step)]
        broadcast_object_list(found)
        self._last = {
            row["evaluator"]: state.global_step
            for row in found[0]
            if row["step"] == state.global_step
        }
        self._baseline.read(found[0])


def _refuse_sharded(trainer: Trainer) -> None:
    from accelerate.utils import DistributedType

    kind = trainer.accelerator.distributed_type
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    sharded = kind == DistributedType.FSDP or (
        kind == DistributedType.DEEPSPEED and getattr(plugin, "zero_stage", 3) == 3
    )
    if sharded:
        raise ConfigError(
            f"evaluators cannot run while the model is sharded ({kind.value}): remove "
            "agenttuning.evaluators and run `agenttuning evaluate` on the saved model"
        )
