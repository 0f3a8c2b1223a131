"""Running an evaluator: the part that is the same for all of them."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from dataset_builders.errors import ConfigError, EvaluatorError
from evaluators.base import Evaluation, Evaluator, Progress, Record, Subject

if TYPE_CHECKING:
    from evaluators.journal import Journal


def run_evaluator(
    evaluator: Evaluator,
    subject: Subject,
    *,
    limit: int | None = None,
    journal: Journal | None = None,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Measure a model with an evaluator; leaves the model's state as it was.

    Every process of a distributed run has to call this. Items are dealt to them in turn,
    and all get the whole result.

    Args:
        evaluator: What measures.
        subject: The model.
        limit: The first so many items; all by default.
        journal: What was finished before, not to be measured again, and where finished
            items are written down: at once by a single process, else in the end by the
            first one.
        on_progress: Told how far this process is.

    Raises:
        ConfigError: No item is left, or the evaluator needs weights and has none.
        EvaluatorError: It broke, on whichever process; raised on all of them.
    """
    started = time.monotonic()
    items = evaluator.items()[:limit]
    if not items:
        raise ConfigError(f"{evaluator.name}: found no task to measure, expected at least one")
    if evaluator.needs_weights and not subject.has_weights:
        raise ConfigError(f"{evaluator.name}: needs the model's weights, not a server's answers")
    finished = {} if journal is None else journal.finished
    if journal is not None and subject.world_size > 1:
        # The first process's: others may not see its disk.
        finished = subject.gather([finished if subject.rank == 0 else {}])[0]
    open_items = [item for item in items if item not in finished]
    mine = open_items[subject.rank :: subject.world_size]
    measured, failure = _measure(evaluator, subject, mine, journal, on_progress)
    told = subject.gather([(measured, failure)])
    if failures := [text for _, text in told if text]:
        raise EvaluatorError(f"{evaluator.name}: {failures[0]}")
    new = {record["item"]: record for records, _ in told for record in records}
    if journal is not None and subject.world_size > 1 and subject.rank == 0:
        for record in new.values():
            journal.add(record)
    records = tuple(finished.get(item) or new.get(item) or _missing(item) for item in items)
    good = [record for record in records if not record["error"]]
    return Evaluation(
        evaluator=evaluator.name,
        metrics=evaluator.metrics(good) if good else {},
        num_errors=len(records) - len(good),
        seconds=time.monotonic() - started,
        records=records,
        suite=evaluator.suite,
        primary=evaluator.primary,
        about=evaluator.about(),
        macro=evaluator.macro,
        error="" if good else f"all {len(records)} tasks failed: {records[0]['error']}",
    )


def _measure(
    evaluator: Evaluator,
    subject: Subject,
    items: list[str],
    journal: Journal | None,
    on_progress: Progress | None,
) -> tuple[list[Record], str]:
    """This process's records, and what broke it: other processes wait to be told."""
    from evaluators.model_state import borrowed

    records: list[Record] = []

    def finished(record: Record) -> None:
        records.append(record)
        if journal is not None and subject.world_size == 1:
            journal.add(record)
        if on_progress is not None:
            on_progress(len(records), len(items))

    try:
        with borrowed(subject) if subject.has_weights else nullcontext():
            evaluator.measure(subject, items, finished)
    except Exception as error:
        if subject.world_size == 1:
            raise
        return records, f"process {subject.rank}: {type(error).__name__}: {error}"
    return records, ""


def _missing(item: str) -> Record:
    return {"item": item, "scores": {}, "error": "the evaluator left it out"}
