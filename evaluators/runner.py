"""Run an evaluator: distribution over processes, resuming, errors and time."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from dataset_builders.errors import ClusterError, ConfigError, EvaluatorError
from evaluators.evaluator import EvalResult, EvalTarget, Evaluator, Progress, Record

if TYPE_CHECKING:
    from evaluators.results.transcripts import Journal


def run_evaluator(
    evaluator: Evaluator,
    subject: EvalTarget,
    *,
    limit: int | None = None,
    journal: Journal | None = None,
    on_progress: Progress | None = None,
) -> EvalResult:
    """Measure a model with an evaluator; restores the model's state.

    Every process of a distributed run must call this. Items are distributed round-robin, and all
    processes get the whole result.

    Args:
        evaluator: The evaluator.
        subject: The model.
        limit: Maximum number of items, the first ones; all by default.
        journal: Finished items, which are not measured again, and where new ones are recorded:
            immediately by a single process, otherwise at the end by the first one. What counts as
            finished is decided by the first process.
        on_progress: Called with the progress of this process.

    Raises:
        ConfigError: No item is left, or the evaluator needs weights and has none.
        EvaluatorError: It failed on any process; raised on all of them, except one that found no
            items, which raises its own error.
        ClusterError: A process is lost, and so is the run.
    """
    started = time.monotonic()
    with _watching(evaluator, subject):
        items, finished = _agree(evaluator, subject, limit, journal)
        open_items = [item for item in items if item not in finished]
        mine = open_items[subject.rank :: subject.world_size]
        new = _share(
            evaluator, subject, journal, _measure(evaluator, subject, mine, journal, on_progress)
        )
    records = tuple(finished.get(item) or new.get(item) or _missing(item) for item in items)
    good = [record for record in records if not record["error"]]
    return EvalResult(
        evaluator=evaluator.name,
        metrics=evaluator.metrics(good) if good else {},
        num_errors=len(records) - len(good),
        seconds=time.monotonic() - started,
        records=records,
        suite=evaluator.suite,
        primary=evaluator.primary,
        about=evaluator.about(),
        macro=evaluator.macro,
        warning=evaluator.warning(records),
        error="" if good else f"all {len(records)} tasks failed: {records[0]['error']}",
    )


def _watching(evaluator: Evaluator, subject: EvalTarget) -> AbstractContextManager[None]:
    if subject.ranks is None:
        return nullcontext()
    return subject.ranks.watching(evaluator.name)


def _agree(
    evaluator: Evaluator, subject: EvalTarget, limit: int | None, journal: Journal | None
) -> tuple[tuple[str, ...], dict[str, Record]]:
    """Agree on all items, and on those finished before, across processes."""
    failure: Exception | None = None
    items: tuple[str, ...] = ()
    try:
        items = evaluator.items()[:limit]
        _check(evaluator, subject, items)
    except Exception as error:
        if subject.world_size == 1:
            raise
        failure = error
    finished = {} if journal is None else journal.finished
    if subject.world_size == 1:
        return items, finished
    own = evaluator.name, items, finished if subject.rank == 0 else {}, _spelt(failure)
    gathered = subject.gather([own])
    if any(name != gathered[0][0] for name, *_ in gathered):
        places = ", ".join(f"process {rank} {name}" for rank, (name, *_) in enumerate(gathered))
        raise ClusterError(f"processes run different evaluators: {places}")
    if failure is not None:
        raise failure
    _raise_any(evaluator, [text for *_, text in gathered])
    for rank, (_, others, _, _) in enumerate(gathered):
        if others != items:
            raise EvaluatorError(
                f"{evaluator.name}: found {len(others)} tasks on process {rank}, and {len(items)} "
                f"or others on process {subject.rank}, expected the same data on all machines"
            )
    return items, gathered[0][2]


def _check(evaluator: Evaluator, subject: EvalTarget, items: tuple[str, ...]) -> None:
    if not items:
        raise ConfigError(f"{evaluator.name}: found no task to measure, expected at least one")
    if evaluator.needs_weights and not subject.has_weights:
        raise ConfigError(f"{evaluator.name}: needs the model's weights, not a server's answers")


def _measure(
    evaluator: Evaluator,
    subject: EvalTarget,
    items: list[str],
    journal: Journal | None,
    on_progress: Progress | None,
) -> tuple[list[Record], str]:
    """Return this process's records and its error, which other processes must learn of."""
    from evaluators.models.eval_mode import evaluation_mode

    records: list[Record] = []
    failure: Exception | None = None

    def finished(record: Record) -> None:
        records.append(record)
        if journal is not None and subject.world_size == 1:
            journal.add(record)
        if subject.ranks is not None:
            subject.ranks.watchdog.ping(f"{len(records)} of {len(items)} tasks finished")
        if on_progress is not None:
            on_progress(len(records), len(items))

    with evaluation_mode(subject) if subject.has_weights else nullcontext():
        try:
            evaluator.measure(subject, items, finished)
        except ClusterError:
            raise
        except Exception as error:
            if subject.world_size == 1:
                raise
            failure = error
        if subject.in_step is not None:
            # Other processes may still need this process's shard of the weights.
            subject.in_step.drain()
    return records, _spelt(failure)


def _share(
    evaluator: Evaluator,
    subject: EvalTarget,
    journal: Journal | None,
    own: tuple[list[Record], str],
) -> dict[str, Record]:
    """Gather the new records of all processes, by item."""
    gathered = subject.gather([own])
    new = {record["item"]: record for records, _ in gathered for record in records}
    if journal is not None and subject.world_size > 1 and subject.rank == 0:
        for record in new.values():
            journal.add(record)
    _raise_any(evaluator, [text for _, text in gathered])
    return new


def _raise_any(evaluator: Evaluator, texts: list[str]) -> None:
    failures = [f"process {rank}: {text}" for rank, text in enumerate(texts) if text]
    if failures:
        raise EvaluatorError(f"{evaluator.name}: {'; '.join(failures)}")


def _spelt(failure: Exception | None) -> str:
    return "" if failure is None else f"{type(failure).__name__}: {failure}"


def _missing(item: str) -> Record:
    return {"item": item, "scores": {}, "error": "the evaluator skipped it"}
