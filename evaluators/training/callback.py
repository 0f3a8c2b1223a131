"""Trainer callback that runs evaluators and logs their results.

Works with any Hugging Face Trainer, including Axolotl's and TRL's.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_builders.errors import ClusterError, ConfigError, EvaluatorError
from evaluators.evaluator import EvalResult, EvalTarget
from evaluators.results.evaluations import write_record
from evaluators.results.history import archive_previous, best_effort_write, discard_after_step
from evaluators.results.resume import forget
from evaluators.tasks.overall import overall_figures
from evaluators.training.baseline import Baseline
from evaluators.training.best_checkpoint import (
    BestModelFigure,
    best_is_loaded,
    go_before_early_stopping,
)
from evaluators.training.callback_order import LastStepCallback, go_last, report_at_end
from evaluators.training.floors import BEST_KEY, BestStep
from evaluators.training.schedule import EvaluationPolicy, Schedule, check_policy
from evaluators.training.scheduled_run import NO_TIME, Plan, ScheduledRun, StepResults, failed
from evaluators.training.shared_base import SharedBase, shared_base
from evaluators.training.step_time import estimate_step_seconds
from evaluators.training.time_budget import TimeBudget
from evaluators.training.trainer_log import log_figures
from evaluators.training.trainer_target import subject_of, tokenizer_of

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

__all__ = ["EvaluationPolicy", "EvaluatorCallback", "Schedule"]

LOG = logging.getLogger(__name__)


class EvaluatorCallback(LastStepCallback):
    """Runs evaluators before, during and after training.

    Add it to a trainer with `EvaluatorCallback.install(trainer, schedules)`. Figures go to the
    trainer's log, and so to its trackers and `trainer_state.json`, under keys like
    `eval_database_success`; with every item also to `evaluations.jsonl` in the output folder, and
    with transcripts to `transcripts/`. The change of a main figure since step 0 is also logged, as
    `_change` and `_change_p`. A figure that `metric_for_best_model` names is measured whenever the
    trainer evaluates.

    Args:
        trainer: The trainer; transformers does not pass it to a callback.
        schedules: Evaluators and when they run. At one step they run in this order.
        end_of_turn: Tokens beside eos that end a turn.
        policy: What holds for all of them.
        unavailable: Evaluators that cannot run here, and why; recorded at step 0.

    Raises:
        ConfigError: Two evaluators have one name, a rule of the policy names none of them, or
            the trainer has no tokenizer.
    """

    def __init__(
        self,
        trainer: Trainer,
        schedules: Sequence[Schedule],
        end_of_turn: Sequence[str] = (),
        policy: EvaluationPolicy | None = None,
        unavailable: Sequence[EvalResult] = (),
    ) -> None:
        tokenizer_of(trainer)  # Checked now, not at the first evaluation.
        self._trainer = trainer
        self._end_of_turn = tuple(end_of_turn)
        self._policy = policy or EvaluationPolicy()
        self._schedules = tuple(map(self._policy.scheduled, schedules))
        self._unavailable = tuple(unavailable)
        check_policy(self._policy, self._schedules, self._unavailable)
        best = self._policy.best
        self._best_step = None if best is None else BestStep(best)
        share = self._policy.max_time_share
        self._budget = None if share is None else TimeBudget(share)
        self._baseline = Baseline()
        self._base: dict[str, float] = {}  # figures of step 0
        self._last: dict[str, int] = {}
        self._found = StepResults()
        self._training = False
        names = [result.evaluator for result in self._unavailable]
        self._best_model = BestModelFigure.of(trainer.args, self._schedules, self._policy, names)

    @classmethod
    def install(
        cls,
        trainer: Trainer,
        schedules: Sequence[Schedule],
        end_of_turn: Sequence[str] = (),
        policy: EvaluationPolicy | None = None,
        unavailable: Sequence[EvalResult] = (),
    ) -> EvaluatorCallback:
        """Create a callback and add it to the trainer.

        Raises:
            ConfigError: See the class; or the trainer already has one, such as when a notebook cell
                is run again: each would archive the other's results.
        """
        if any(isinstance(each, cls) for each in trainer.callback_handler.callbacks):
            raise ConfigError(
                "trainer: it already has an EvaluatorCallback, expected one with all "
                "evaluators; remove it with trainer.remove_callback(EvaluatorCallback)"
            )
        callback = cls(trainer, schedules, end_of_turn, policy, unavailable)
        trainer.add_callback(callback)
        return callback

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure the base model, unless a resumed run or this one already did.

        `auto_find_batch_size` restarts until batches fit. Later results are discarded.
        """
        again = self._training and args.auto_find_batch_size and bool(self._base)
        self._training, self._last = True, {}
        self._found, self._baseline = StepResults(), Baseline()
        go_before_early_stopping(self._trainer, self)
        if self._budget is not None:
            subject = self._subject()
            seconds = subject.gather([estimate_step_seconds(self._trainer, subject)])[0]
            self._budget.start(state.global_step, seconds)
        if state.global_step > 0 or again:
            self._resume(state)
            if again:  # So does the trainer's log.
                self._log(self._base, state, control)
            return
        if self._best_step is not None:
            self._best_step.best = {}
        if state.is_world_process_zero:
            archive_previous(self._folder)
            for result in self._unavailable:
                LOG.warning("%s is not measured: %s", result.evaluator, result.error)
                write_record(self._folder, 0, result)
        self._run([s for s in self._schedules if s.at_start], state, control)
        self._base = dict(self._found.at(0).figures)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Run the evaluators that are due at this step."""
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
        """Provide this step's figures to the trainer, which may select its checkpoint by one."""
        if metrics is None or not self._training:
            return
        wanted = self._best_model
        self._run([s for s in self._schedules if wanted.comes_from(s)], state, control)
        metrics.update(self._found.at(state.global_step).figures)
        wanted.fill(metrics, state.global_step)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure the last step before the trainer loads its best checkpoint instead."""
        report_at_end(self._trainer, self, control)
        if args.load_best_model_at_end and control.should_training_stop:
            self._run([s for s in self._schedules if s.at_end], state, control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure the final model, unless this has just been done."""
        if not best_is_loaded(args, state):
            self._run([s for s in self._schedules if s.at_end], state, control)
        self._training = False
        go_last(self._trainer, self)
        if state.is_world_process_zero:
            forget(self._folder)

    @property
    def _folder(self) -> Path:
        return Path(self._trainer.args.output_dir or ".")

    def _run(
        self, schedules: Sequence[Schedule], state: TrainerState, control: TrainerControl
    ) -> None:
        due = [s for s in schedules if self._last.get(s.evaluator.name) != state.global_step]
        if not due:
            return
        shows = bool(state.is_world_process_zero and not self._trainer.args.disable_tqdm)
        steps = state.global_step, state.max_steps
        moment = ScheduledRun(self._subject(), self._folder, *steps, shows)
        runs = partial(self._best_model.runs_from, args=self._trainer.args, state=state)
        plan = {s.evaluator.name: (s.limit, runs(s), s.evaluator) for s in self._schedules}
        for schedule in due:
            self._last[schedule.evaluator.name] = state.global_step
            self._publish(self._measure(moment, schedule, plan), state, control)
        self._look({s.evaluator.name for s in due}, state, control)

    def _measure(self, moment: ScheduledRun, schedule: Schedule, plan: Plan) -> EvalResult:
        evaluator = schedule.evaluator
        try:
            shared = None if moment.step else self._shared(moment, schedule)
            result = moment.measure(evaluator, schedule.limit, self._budget, plan, shared)
        except ClusterError:
            raise  # Another process is lost, and so is the run.
        except Exception as error:
            if self._policy.strict:
                raise
            LOG.warning("evaluator %s failed: %s", evaluator.name, error, exc_info=True)
            return failed(evaluator, error)
        if result.error and result.error != NO_TIME:
            if self._policy.strict:
                raise EvaluatorError(f"{evaluator.name}: {result.error}")
            LOG.warning("evaluator %s measured nothing: %s", evaluator.name, result.error)
        return result

    def _shared(self, moment: ScheduledRun, schedule: Schedule) -> SharedBase | None:
        folder, limit = self._policy.shared_base, schedule.limit
        return shared_base(folder, schedule.settings, schedule.evaluator, limit, moment.subject)

    def _look(self, names: set[str], state: TrainerState, control: TrainerControl) -> None:
        """Apply the rules to the results of a step, including these new ones."""
        step, policy, found = state.global_step, self._policy, self._found.at(state.global_step)
        changes = {name: c for name, r in found.results.items() if (c := self._baseline.change(r))}
        figures = overall_figures(found.results)
        if self._best_step is not None:
            score = self._best_step.update(step, found.results, changes)
            if score is not None:
                figures[BEST_KEY] = score
            if state.is_world_process_zero:
                best_effort_write(partial(self._best_step.save, self._folder), strict=policy.strict)
        if figures := {key: value for key, value in figures.items() if key not in found.figures}:
            self._log(figures, state, control)
        floor = policy.stop_if_general_drops
        if floor is not None and floor.evaluator in changes.keys() & names:
            figure = found.results[floor.evaluator].primary
            change = changes[floor.evaluator]
            if floor.broken(change, figure):
                LOG.warning(
                    "training stops at step %d: %s %s went from %.4f to %.4f (p %.3g)",
                    *(step, floor.evaluator, figure),
                    *(change.before, change.after, change.p_value),
                )
                control.should_training_stop = True

    def _subject(self) -> EvalTarget:
        return subject_of(self._trainer, self._end_of_turn, timeout=self._policy.watchdog)

    def _publish(self, result: EvalResult, state: TrainerState, control: TrainerControl) -> None:
        step = state.global_step
        if not step:
            self._baseline.add(result)
        self._found.at(step).results[result.evaluator] = result
        figures = result.log()
        if self._budget is not None:
            figures[f"eval_{result.evaluator}_num_items"] = float(len(result.records))
        if (change := self._baseline.change(result) if step else None) is not None:
            key = f"eval_{result.evaluator}_{result.primary}_change"
            figures |= {key: change.value, f"{key}_p": change.p_value}
        self._log(figures, state, control)
        if state.is_world_process_zero:
            best_effort_write(
                partial(write_record, self._folder, step, result), strict=self._policy.strict
            )

    def _log(self, figures: dict[str, float], state: TrainerState, control: TrainerControl) -> None:
        self._found.at(state.global_step).figures.update(figures)
        log_figures(self._trainer, figures, control)

    def _resume(self, state: TrainerState) -> None:
        """Restore the results up to the checkpoint, identically on every rank."""
        from accelerate.utils import broadcast_object_list

        found: list[Any] = [[]]
        if state.is_world_process_zero:
            found = [discard_after_step(self._folder, state.global_step)]
        broadcast_object_list(found)
        now = state.global_step
        self._last = {row["evaluator"]: now for row in found[0] if row["step"] == now}
        self._baseline.read(found[0])
        known = self._baseline.knows
        for name in {f.evaluator for f in self._policy.floors if not known(f.evaluator)}:
            LOG.warning("the floor on %s has no effect: no record of its baseline, step 0", name)
        if self._best_step is not None:
            self._best_step.restore(found[0], self._baseline)
