"""Evaluators inside training: when to run, and how the figures reach the log.

Works with any Hugging Face Trainer, Axolotl's and TRL's included.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from dataset_builders.errors import ConfigError
from evaluators.base import RECORDS_FILE, Evaluation, Evaluator, Subject
from evaluators.results_file import write_record
from evaluators.training_subject import subject_of

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
    """

    evaluator: Evaluator
    every: int | None = None
    at_start: bool = True
    at_end: bool = True

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 1:
            raise ConfigError(f"every: found {self.every}, expected at least 1 step")


class EvaluatorCallback(TrainerCallback):
    """Runs evaluators before, during and after training.

    Add it to a trainer with `EvaluatorCallback.install(trainer, schedules)`. Figures go
    to the trainer's log, and so to its trackers and `trainer_state.json`, under keys like
    `eval_database_success`; items also to `evaluations.jsonl` in the output folder.

    Args:
        trainer: The trainer; a callback is not told which one calls it.
        schedules: Evaluators and when they run. At one step they run in this order.
        end_of_turn: Tokens beside eos that end a turn.

    Raises:
        ConfigError: Two evaluators have one name.
    """

    def __init__(
        self, trainer: Trainer, schedules: Sequence[Schedule], end_of_turn: Sequence[str] = ()
    ) -> None:
        self._trainer = trainer
        self._schedules = tuple(schedules)
        self._end_of_turn = tuple(end_of_turn)
        names = [schedule.evaluator.name for schedule in self._schedules]
        if len(set(names)) < len(names):
            raise ConfigError(
                f"evaluators: found {', '.join(names)}, expected different names: their figures "
                "would overwrite each other"
            )
        self._last: dict[str, int] = {}

    @classmethod
    def install(
        cls, trainer: Trainer, schedules: Sequence[Schedule], end_of_turn: Sequence[str] = ()
    ) -> EvaluatorCallback:
        """Make a callback and add it to the trainer."""
        callback = cls(trainer, schedules, end_of_turn)
        trainer.add_callback(callback)
        return callback

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure the base, unless training resumes: then it was measured before.

        Measurements later than the checkpoint are forgotten: they will be made again.
        """
        records = Path(self._trainer.args.output_dir or ".") / RECORDS_FILE
        if state.global_step > 0:
            self._last = _resume(records, state)
            return
        if state.is_world_process_zero:
            _put_aside(records)
        self._run([s for s in self._schedules if s.at_start], state, control)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure on the cadence."""
        step = state.global_step
        self._run([s for s in self._schedules if s.every and step % s.every == 0], state, control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure the result, unless the cadence has just done so."""
        self._run([s for s in self._schedules if s.at_end], state, control)

    def _run(
        self, schedules: Sequence[Schedule], state: TrainerState, control: TrainerControl
    ) -> None:
        due = [s for s in schedules if self._last.get(s.evaluator.name) != state.global_step]
        if not due:
            return
        subject = subject_of(self._trainer, self._end_of_turn)
        for schedule in due:
            self._last[schedule.evaluator.name] = state.global_step
            result = _with_progress(schedule.evaluator, subject, self._shows_progress(state))
            self._publish(result, state, control)

    def _shows_progress(self, state: TrainerState) -> bool:
        return bool(state.is_world_process_zero and not self._trainer.args.disable_tqdm)

    def _publish(self, result: Evaluation, state: TrainerState, control: TrainerControl) -> None:
        from transformers import Trainer

        # Trainer.log on the base class: TRL's own adds its running averages and clears
        # them, so the training log of this step would lose them. Logging also resets
        # should_log, which would swallow that very log.
        should_log = control.should_log
        Trainer.log(self._trainer, result.log())
        control.should_log = should_log
        if state.is_world_process_zero:
            write_record(Path(self._trainer.args.output_dir or "."), state.global_step, result)


def _put_aside(records: Path) -> None:
    """Keep an earlier run's records out of this one's, but do not lose them."""
    if records.exists():
        number = 1
        while (kept := records.with_suffix(f".previous-{number}.jsonl")).exists():
            number += 1
        records.replace(kept)


def _resume(records: Path, state: TrainerState) -> dict[str, int]:
    """Forget what was measured after the checkpoint: it will be measured again.

    Returns:
        The checkpoint's step by name of each evaluator that has run at it, on every rank
        the same.
    """
    from accelerate.utils import broadcast_object_list

    found: list[dict[str, int]] = [{}]
    if state.is_world_process_zero and records.exists():
        lines = records.read_text(encoding="utf-8", errors="replace").split("\n")
        rest = lines.pop()  # empty, unless the process was killed as it wrote
        rows = [_read_record(line) for line in lines]
        kept = [(line, row) for line, row in zip(lines, rows, strict=True) if row]
        if len(kept) < len(lines):
            LOG.warning("%s: %d damaged lines left out", records, len(lines) - len(kept))
        kept = [pair for pair in kept if pair[1]["step"] <= state.global_step]
        if rest or len(kept) < len(lines):
            LOG.info("%s: %d of %d lines kept", records, len(kept), len(lines))
            shorter = records.with_suffix(".shorter.jsonl")
            shorter.write_text("".join(line + "\n" for line, _ in kept), encoding="utf-8")
            shorter.replace(records)
        names = (row["evaluator"] for _, row in kept if row["step"] == state.global_step)
        found = [dict.fromkeys(names, state.global_step)]
    broadcast_object_list(found)
    return found[0]


def _read_record(line: str) -> dict[str, Any] | None:
    """A line of the records; none if it is damaged, as by a disk that was full."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(row, dict) and isinstance(row.get("step"), int) and "evaluator" in row
    return row if whole else None


def _with_progress(evaluator: Evaluator, subject: Subject, show: bool) -> Evaluation:
    if not show:
        return evaluator.evaluate(subject)
    from tqdm import tqdm

    with tqdm(desc=f"evaluating {evaluator.name}", leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return evaluator.evaluate(subject, progress)
