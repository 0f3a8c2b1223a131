"""Running an evaluator: the part that is the same for all of them."""

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
    """Measure a model with an evaluator; leaves the model's state as it was.

    Every process of a distributed run has to call this. Items are dealt to them in turn,
    and all get the whole result.

    Args:
        evaluator: What measures.
        subject: The model.
        limit: The first so many items; all by default.
        journal: What was finished before, not to be measured again, and where finished
            items are written down: at once by a single process, else in the end by the
            first one. What counts as finished is what the first process finds there.
        on_progress: Told how far this process is.

    Raises:
        ConfigError: No item is left, or the evaluator needs weights and has none.
        EvaluatorError: It broke, on whichever process; raised on all of them, but one that
            found no items raises its own error.
        ClusterError: A process is lost, and the run with it.
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
    """All items, and what was finished of them: on every process the same."""
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
    told = subject.gather([own])
    if any(name != told[0][0] for name, *_ in told):
        places = ", ".join(f"process {rank} {name}" for rank, (name, *_) in enumerate(told))
        raise ClusterError(f"processes run different evaluators: {places}")
    if failure is not None:
        raise failure
    _raise_any(evaluator, [text for *_, text in told])
    for rank, (_, others, _, _) in enumerate(told):
        if others != items:
            raise EvaluatorError(
                f"{evaluator.name}: found {len(others)} tasks on process {rank}, and {len(items)} "
                f"or others on process {subject.rank}, expected the same data on all machines"
            )
    return items, told[0][2]


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
    """This process's records, and what broke it: other processes wait to be told."""
    from evaluators.models.eval_mode import evaluation_mode

    records: list[Record] = []
    failure: Exception | None = None

    def finished(record: Record) -> None:
        records.append(record)
        if journal is not None and subject.world_size == 1:
            journal.add(record)
        if subject.ranks is not None:
            subject.ranks.watchdog.beat(f"{len(records)} of {len(items)} tasks finished")
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
            # Others may need this process's share of the weights for a while yet.
            subject.in_step.leave()
    return records, _spelt(failure)


def _share(
    evaluator: Evaluator,
    subject: EvalTarget,
    journal: Journal | None,
    own: tuple[list[Record], str],
) -> dict[str, Record]:
    """The new records of all processes, by item."""
    told = subject.gather([own])
    new = {record["item"]: record for records, _ in told for record in records}
    if journal is not None and subject.world_size > 1 and subject.rank == 0:
        for record in new.values():
            journal.add(record)
    _raise_any(evaluator, [text for _, text in told])
    return new


def _raise_any(evaluator: Evaluator, texts: list[str]) -> None:
    failures = [f"process {rank}: {text}" for rank, text in enumerate(texts) if text]
    if failures:
        raise EvaluatorError(f"{evaluator.name}: {'; '.join(failures)}")


def _spelt(failure: Exception | None) -> str:
    return "" if failure is None else f"{type(failure).__name__}: {failure}"


def _missing(item: str) -> Record:
    return {"item": item, "scores": {}, "error": "the evaluator left it out"}
