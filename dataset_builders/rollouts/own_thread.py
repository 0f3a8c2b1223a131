"""A thread that one environment lives in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

_T = TypeVar("_T")


class OwnThread:
    """Does one thing after the other, beside the caller.

    Some environments hold a database connection or a child process that only the thread
    they were made in may speak to. It is not an executor's thread: the interpreter waits
    for those at its end, and an environment that hangs would hold it for ever.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        threading.Thread(target=self._work, name="environment", daemon=True).start()

    def submit(self, call: Callable[[], _T]) -> Future[_T]:
        """Do something when all before it is done."""
        future: Future[_T] = Future()
        self._jobs.put((future, call))
        return future

    def end(self) -> None:
        """End the thread when all that was submitted is done."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, call = job
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)


class NoThread:
    """Does things at once, in the caller's thread; for what takes no time."""

    def submit(self, call: Callable[[], _T]) -> Future[_T]:
        """Do something now."""
        future: Future[_T] = Future()
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)
        return future

    def end(self) -> None:
        """Nothing is left to end."""
