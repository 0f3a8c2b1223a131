"""Answer benchmark items: in batches by a local model, concurrently by a server."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

from dataset_builders.errors import ConfigError
from dataset_builders.rollouts.threads import WorkerPool, in_caller_thread, run_in_thread
from evaluators.models.target import EvalTarget

_T = TypeVar("_T")

_SECONDS_TO_LOOK = 0.1
"""Interval between checks whether more items may be in progress."""
_SECONDS_AFTER_ERROR = 5.0
"""Grace period for items in progress after an error: they may wait for ever."""


def answer_items(
    subject: EvalTarget,
    items: Sequence[str],
    batch_size: int,
    answer: Callable[[Sequence[str]], Sequence[_T]],
    finished: Callable[[str, _T], None],
) -> None:
    """Answer items, and process each answer as soon as it arrives.

    A model in this process answers `batch_size` items at once. A server answers each request
    when it is ready, so each item is requested separately, as many in parallel as the server
    sustains (`EndpointModel.in_flight_limit`), at most `batch_size`: a slow answer delays no
    other, and a process that is killed loses only the items in flight.

    Args:
        subject: The model.
        items: The items.
        batch_size: Maximum items in progress.
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

    if batch_size < 1:
        raise ConfigError(f"batch_size: found {batch_size}, expected at least 1")

    def one(item: str) -> _T:
        (result,) = answer([item])
        return result

    def room() -> int:
        return min(batch_size, max(1, most()))

    run_in_thread(lambda: _independently(items, room, one, finished))


async def _independently(
    items: Sequence[str],
    room: Callable[[], int],
    answer: Callable[[str], _T],
    finished: Callable[[str, _T], None],
) -> None:
    waiting, pool = deque(items), WorkerPool()
    running: dict[asyncio.Task[_T], str] = {}
    try:
        while waiting or running:
            while waiting and len(running) < room():
                item = waiting.popleft()
                running[asyncio.create_task(pool.run(answer, item))] = item
            # The room may grow with a request of an item that has further ones.
            done, _ = await asyncio.wait(
                running, timeout=_SECONDS_TO_LOOK, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                await in_caller_thread(finished, running.pop(task), task.result())
    finally:
        await _settle(running)
        pool.close()


async def _settle(running: Collection[asyncio.Task[_T]]) -> None:
    """Give items in progress a grace period, for example after an error; then abandon them."""
    if running:
        _, late = await asyncio.wait(running, timeout=_SECONDS_AFTER_ERROR)
        for task in late:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def batches(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Yield items in batches."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
