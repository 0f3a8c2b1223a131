"""Ordered parallel map over worker processes, with bounded memory."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from dataset_builders.errors import AgentTuningError

Item = TypeVar("Item")
Result = TypeVar("Result")

_work: Callable[[Any], Any] | None = None


class WorkerLostError(AgentTuningError, RuntimeError):
    """A worker process was killed, most likely because memory ran out."""


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], processes: int
) -> Iterator[Result]:
    """Apply a function to items in other processes and yield results in order.

    Few items are read ahead of the results, so a stream is not held in memory.

    Args:
        function: The function; sent to each process once, at its start.
        items: Its arguments; must be picklable.
        processes: Number of processes; 1 to use only this one.

    Raises:
        WorkerLostError: A worker process was killed.
    """
    if processes <= 1:
        yield from map(function, items)
        return
    # A forked process has the tokenizer already; elsewhere it is sent to a fresh one.
    fork = "fork" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if fork else "spawn")
    pool = ProcessPoolExecutor(
        processes, mp_context=context, initializer=_start, initargs=(function,)
    )
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(_submit(pool, item))
            if len(pending) > 2 * processes:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise WorkerLostError(
            f"one of {processes} processes was killed, perhaps because memory ran out: "
            "use fewer processes"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, item: Any) -> Future[Any]:
    with warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads. The processes touch none of those:
        # they render, encode and count.
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        return pool.submit(_run, item)


def _start(function: Callable[[Any], Any]) -> None:
    global _work
    # One thread each; and the tokenizers of a forked process may not use theirs.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _work = function


def _run(item: Any) -> Any:
    assert _work is not None
    return _work(item)
