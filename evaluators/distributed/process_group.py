"""The processes of a distributed run, as an evaluation sees them."""

from __future__ import annotations

import pickle
import signal
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from typing import Any

from dataset_builders.errors import ClusterError, EvaluatorError
from evaluators.distributed.heartbeat import Heartbeat

DEFAULT_TIMEOUT = 1800.0
"""Seconds without a sign of life after which a process is given up."""

_CHUNK_BYTES = 16 * 2**20
"""Of a gather: transcripts can be large, and every process needs room for those of all."""

_LAST_SECONDS = 60
"""From finding that a process is lost until this one is ended, too."""

_known: list[tuple[Any, ProcessGroup]] = []
"""The last process group and what was made for it: groups are dear, and never given back."""


class ProcessGroup:
    """Where the processes of a run meet in an evaluation; see `ranks_here`.

    They meet in a group of their own, with gloo: on the CPU, so that it works beside any
    backend that trains, and without a time limit of its own, since one process may play tasks
    for an hour longer than another. Instead of that, `Heartbeat` tells who is lost.

    Args:
        timeout: Seconds without a sign of life after which a process is given up.

    Attributes:
        rank: Number of this process.
        size: Number of processes.
        watchdog: Its signs of life.
    """

    def __init__(self, timeout: float) -> None:
        import torch.distributed as dist

        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        # Longer than any evaluation: see the class.
        self._group = dist.new_group(backend="gloo", timeout=timedelta(days=30))
        store = dist.distributed_c10d._get_default_store()
        self.watchdog = Heartbeat(store, self.rank, self.size, timeout)

    def watching(self, evaluator: str) -> AbstractContextManager[None]:
        """Publish signs of life while an evaluator runs; `any` needs that."""
        return self.watchdog.watching(evaluator)

    def gather(self, items: list[Any]) -> list[Any]:
        """Join the lists of all processes, in the order of their numbers.

        Every process has to call it.

        Raises:
            EvaluatorError: A list cannot be sent; raised on all processes.
            ClusterError: A process has died, or given no sign of life for too long.
        """
        if not self.watchdog.evaluator:  # Between evaluators, as to agree on what comes next.
            with self.watching("evaluation"):
                return self.gather(items)
        try:
            content, fault = pickle.dumps(items), ""
        except Exception as error:  # Whatever an object's own methods raise.
            content, fault = b"", f"{type(error).__name__}: {error}"
        # Told like any other: processes that wait for a list have to learn of it.
        contents = self._gather_bytes(pickle.dumps((content, fault)))
        told = [pickle.loads(part) for part in contents]
        for rank, (_, text) in enumerate(told):
            if text:
                raise EvaluatorError(f"records of process {rank} cannot be sent: {text}")
        return [item for part, _ in told for item in pickle.loads(part)]

    def any(self, wants: bool) -> bool:
        """Whether any process wants something; every process has to call it.

        Raises:
            ClusterError: As for `gather`.
        """
        import torch

        return any(part.item() for part in self._all_gather(torch.tensor([int(wants)])))

    def _gather_bytes(self, content: bytes) -> list[bytes]:
        import torch

        sizes = [int(part) for part in self._all_gather(torch.tensor([len(content)]))]
        parts = [bytearray() for _ in sizes]
        for start in range(0, max(sizes), _CHUNK_BYTES):
            width = min(_CHUNK_BYTES, max(sizes) - start)
            own = content[start : start + width].ljust(width, b"\0")
            chunks = self._all_gather(torch.frombuffer(bytearray(own), dtype=torch.uint8))
            for part, chunk in zip(parts, chunks, strict=True):
                part += chunk.numpy().tobytes()
        return [bytes(part[:size]) for part, size in zip(parts, sizes, strict=True)]

    def _all_gather(self, own: Any) -> list[Any]:
        import torch
        import torch.distributed as dist

        parts = [torch.empty_like(own) for _ in range(self.size)]
        with self.watchdog.waiting():
            try:
                work = dist.all_gather(parts, own, group=self._group, async_op=True)
                self._wait(work)
            except RuntimeError as error:  # torch's only class for a peer that is gone.
                if isinstance(error, ClusterError):
                    raise
                line = str(error).partition(". ")[0].rpartition("] ")[2] or str(error)
                raise ClusterError(
                    f"{self.watchdog.evaluator}: process {self.rank} lost another process"
                    f"{self.watchdog.last_words()}: {line}"
                ) from error
        return parts

    def _wait(self, work: Any) -> None:
        patience = timedelta(seconds=min(self.watchdog.timeout / 5, 10.0))
        while True:
            try:
                work.wait(patience)
            except RuntimeError:
                if work.is_completed():
                    raise
            else:
                return
            if line := self.watchdog.overdue():
                _end_soon()
                raise ClusterError(line)


def _end_soon() -> None:
    """Make sure that this process ends, whatever becomes of the error.

    The collective that is still waiting holds up the end of the interpreter, and a launcher that
    sees no process fail goes on waiting, too.
    """
    if hasattr(signal, "alarm"):
        with suppress(ValueError):  # Not the main thread: the handler stays what it is.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_LAST_SECONDS)


def ranks_here(timeout: float = DEFAULT_TIMEOUT) -> ProcessGroup | None:
    """The processes of this run; None where there is one, or no process group.

    The first call makes a process group, so every process has to make it.

    Args:
        timeout: Seconds without a sign of life after which a process is given up.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return None
    world = dist.group.WORLD
    if not _known or _known[-1][0] is not world:
        _known[:] = [(world, ProcessGroup(timeout))]
    ranks = _known[-1][1]
    ranks.watchdog.timeout = timeout
    return ranks
