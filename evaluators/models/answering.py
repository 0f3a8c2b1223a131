"""Answers benchmark items: in batches by a local model, independently of each other by a server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from dataset_builders.rollouts.window import in_window
from evaluators.models.target import EvalTarget

_T = TypeVar("_T")


def answer_items(
    subject: EvalTarget,
    items: Sequence[str],
    batch_size: int,
    answer: Callable[[Sequence[str]], Sequence[_T]],
    finished: Callable[[str, _T], None],
) -> None:
    """Have items answered, and process each answer as soon as it arrives.

    A model in this process answers `batch_size` items at once. A server answers each request
    when it is ready, so each item is requested separately, as many in parallel as the server
    sustains (`EndpointModel.in_flight_limit`), at most `batch_size`: a slow answer delays no
    other, and a process that is killed loses only the items in flight.

    Args:
        subject: The model.
        items: What to answer.
        batch_size: Most items in progress.
        answer: Answers some items, one result each. For a server it is called with one item,
            from several threads at once.
        finished: Called with an item and its result, from the thread that called this; in the
            order of the items for a model in this process, else as they come.

    Raises:
        ConfigError: The batch size is less than 1.
        Exception: Whatever `answer` or `finished` raises.
    """
    most: Callable[[], int] | None = getattr(subject.server, "in_flight_limit", None)
    if most is None:
        for batch in batches(items, batch_size):
            for item, result in zip(batch, answer(batch), strict=True):
                finished(item, result)
        return

    @contextmanager
    def worker(over: threading.Event) -> Iterator[Callable[[int, str], tuple[str, _T]]]:
        del over  # An item has few requests; there is no good place to stop between them.
        yield one

    def one(index: int, item: str) -> tuple[str, _T]:
        (result,) = answer([item])
        return item, result

    in_window(
        items,
        worker,
        ceiling=batch_size,
        most=most,
        finished=lambda _, told: finished(*told),
    )


def batches(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Items, so many at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
