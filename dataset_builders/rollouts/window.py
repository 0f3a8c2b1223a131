"""A sliding window of items processed in threads, independently of each other."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from dataset_builders.errors import ConfigError

_T = TypeVar("_T")
_R = TypeVar("_R")

Worker = Callable[[threading.Event], AbstractContextManager[Callable[[int, _T], _R | None]]]
"""Context manager that opens a worker in its own thread. It gets an event that is set when no more
results are needed, and yields a function of an item's number and the item, which returns None
if that event interrupted it."""

_SECONDS_TO_LOOK = 0.1
"""Interval between checks whether more items may be in progress."""
_SECONDS_TO_CLOSE = 30.0
"""For all workers together; one that takes longer is abandoned."""
_SECONDS_AFTER_ERROR = 5.0
"""Likewise after an error, as others may wait for an answer that never comes."""


def in_window(
    things: Iterable[_T],
    worker: Worker[_T, _R],
    *,
    ceiling: int,
    most: Callable[[], int],
    finished: Callable[[int, _R], None],
) -> None:
    """Process items in parallel; a worker that is done takes the next one.

    Args:
        things: Items, started in this order.
        worker: See `Worker`; one for each item in progress, reused.
        ceiling: Most items in progress.
        most: How many may be in work now; looked at again and again, and taken as at least 1.
        finished: Called with a thing's number and its result as soon as it is there, from the
            thread that called this.

    Raises:
        ConfigError: The ceiling is less than 1.
        Exception: Whatever a worker or `finished` raises. Other workers finish their current
            item and are closed.
    """
    if ceiling < 1:
        raise ConfigError(f"batch_size: found {ceiling}, expected at least 1")
    waiting = deque(enumerate(things))
    total, done = len(waiting), 0
    news: SimpleQueue[tuple[int, _R] | BaseException] = SimpleQueue()
    over = threading.Event()
    workers: list[threading.Thread] = []
    try:
        while done < total:
            # A worker that found nothing left has ended; it is not replaced.
            while waiting and len(workers) < min(ceiling, max(1, most())):
                job = _Job(worker, waiting, news, over)
                workers.append(threading.Thread(target=job.run, name="window", daemon=True))
                workers[-1].start()
            try:
                told = news.get(timeout=_SECONDS_TO_LOOK)
            except Empty:
                continue
            if isinstance(told, BaseException):
                raise told
            finished(*told)
            done += 1
    finally:
        over.set()
        _wait_for(workers, _SECONDS_TO_CLOSE if done == total else _SECONDS_AFTER_ERROR)


def _wait_for(workers: Iterable[threading.Thread], seconds: float) -> None:
    """Wait until all are closed: the end of the process would cut that short."""
    until = time.monotonic() + seconds
    for each in workers:
        each.join(max(0.0, until - time.monotonic()))


class _Job(Generic[_T, _R]):
    """A thread's work."""

    def __init__(
        self,
        worker: Worker[_T, _R],
        waiting: deque[tuple[int, _T]],
        news: SimpleQueue[tuple[int, _R] | BaseException],
        over: threading.Event,
    ) -> None:
        self._worker = worker
        self._waiting = waiting
        self._news = news
        self._over = over

    def run(self) -> None:
        try:
            with self._worker(self._over) as work:
                while not self._over.is_set() and self._waiting:
                    try:
                        index, thing = self._waiting.popleft()
                    except IndexError:  # Another one was faster.
                        return
                    if (result := work(index, thing)) is not None:
                        self._news.put((index, result))
        except BaseException as error:  # Raised again in the thread that waits for the news.
            self._news.put(error)
