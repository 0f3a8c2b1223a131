"""Threads beside an event loop: those of environments, and the one that called `play`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

_T = TypeVar("_T")

_Jobs = SimpleQueue[Callable[[], None] | None]
_CALLER: ContextVar[_Jobs] = ContextVar("jobs of the thread that waits in run_in_thread")


class Worker:
    """A thread that executes calls one after the other.

    Not an executor: the interpreter waits for those at exit, so a hanging environment would block
    it for ever.

    Args:
        name: Name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._jobs: _Jobs = SimpleQueue()
        threading.Thread(target=_work, args=(self._jobs,), name=name, daemon=True).start()

    def submit(self, call: Callable[[], _T]) -> asyncio.Future[_T]:
        """Call a function after all earlier calls."""
        return _submit(self._jobs, call)

    def end(self) -> None:
        """End the thread after all calls."""
        self._jobs.put(None)


class WorkerPool:
    """Threads for blocking calls, as many as there are concurrent calls."""

    def __init__(self) -> None:
        self._free: list[Worker] = []

    async def run(self, call: Callable[..., _T], *arguments: object) -> _T:
        """Call a function in a thread."""
        worker = self._free.pop() if self._free else Worker("call")
        try:
            result = await worker.submit(lambda: call(*arguments))
        except BaseException:
            worker.end()  # If this was cancelled, the call still runs.
            raise
        self._free.append(worker)
        return result

    def close(self) -> None:
        """End the free threads."""
        while self._free:
            self._free.pop().end()


def run_in_thread(main: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Run a coroutine on an event loop in its own thread, and wait for it.

    It can therefore be called while a loop is running, as in a notebook. Meanwhile this thread
    executes what the coroutine passes to `in_caller_thread`.

    Raises:
        Exception: Whatever the coroutine raises.
        KeyboardInterrupt: This thread was interrupted; the coroutine has been cancelled.
    """
    jobs: _Jobs = SimpleQueue()
    outcome: Future[_T] = Future()
    started: Future[Callable[[], object]] = Future()

    async def entry() -> _T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        started.set_result(partial(loop.call_soon_threadsafe, task.cancel))
        _CALLER.set(jobs)
        return await main()

    def work() -> None:
        try:
            outcome.set_result(asyncio.run(entry()))
        except BaseException as error:
            outcome.set_exception(error)
        finally:
            jobs.put(None)

    threading.Thread(target=work, name="rollouts", daemon=True).start()
    try:
        _work(jobs)
    except BaseException:
        if not outcome.done():
            started.result()()
        while jobs.get() is not None:
            pass  # Calls of a run that was cancelled.
        raise
    return outcome.result()


async def in_caller_thread(call: Callable[..., _T], *arguments: object) -> _T:
    """Call a function in the thread that waits in `run_in_thread`.

    Thread-local state is available there: a model's autocast context, or a caller's connections.
    """
    return await _submit(_CALLER.get(), lambda: call(*arguments))


def _submit(jobs: _Jobs, call: Callable[[], _T]) -> asyncio.Future[_T]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def settle(result: Any, error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def job() -> None:
        result, error = None, None
        try:
            result = call()
        except Exception as raised:
            error = raised
        with suppress(RuntimeError):  # The loop is closed: no caller waits any more.
            loop.call_soon_threadsafe(settle, result, error)

    jobs.put(job)
    return future


def _work(jobs: _Jobs) -> None:
    while (job := jobs.get()) is not None:
        job()
