"""Process group of a distributed evaluation."""

from __future__ import annotations

import pickle
import signal
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from typing import Any

from dataset_builders.errors import ClusterError, EvaluatorError
from evaluators.distributed.heartbeat import Heartbeat

DEFAULT_TIMEOUT = 1800.0
"""Heartbeat timeout in seconds; a silent process is then considered dead."""

_CHUNK_BYTES = 16 * 2**20
"""Memory bound of a gather: transcripts can be large, and every process receives those of all."""

_LAST_SECONDS = 60
"""Seconds between detecting a lost process and ending this one."""

_known: list[tuple[Any, ProcessGroup]] = []
"""The last process group and its derived group: groups are expensive and never freed."""


class ProcessGroup:
    """Collective operations of the processes of an evaluation; see `ranks_here`.

    They use a separate gloo group: on the CPU, so that it works with any training backend, and
    without a collective timeout, since one process may play tasks for an hour longer than another.
    Instead, `Heartbeat` detects lost processes.

    Args:
        timeout: Heartbeat timeout in seconds; a silent process is then considered dead.

    Attributes:
        rank: Number of this process.
        size: Number of processes.
        watchdog: Its heartbeat.
    """

    def __init__(self, timeout: float) -> None:
        import torch.distributed as dist

        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        # Longer than any evaluation: see the class.
        self._group = dist.new_group(backend="gloo", timeout=timedelta(days=30))
        store = dist.distributed_c10d._get_default_store()
        self.watchdog = Heartbeat(store, self.rank, self.size, timeout)

    def watching(self, evaluator: str) -> AbstractContextManager[None]:
        """Publish heartbeats while an evaluator runs; required by `any`."""
        return self.watchdog.watching(evaluator)

    def gather(self, items: list[Any]) -> list[Any]:
        """Concatenate the lists of all processes, in rank order.

        Every process must call it.

        Raises:
            EvaluatorError: A list cannot be sent; raised on all processes.
            ClusterError: A process has died, or its heartbeat timed out.
        """
        if not self.watchdog.evaluator:  # Between evaluators, for example to agree on the next one.
            with self.watching("evaluation"):
                return self.gather(items)
        try:
            content, fault = pickle.dumps(items), ""
        except Exception as error:  # Whatever the methods of an object raise.
            content, fault = b"", f"{type(error).__name__}: {error}"
        # Sent like a list: the processes that wait for one must learn of the error.
        contents = self._gather_bytes(pickle.dumps((content, fault)))
        lists = [pickle.loads(part) for part in contents]
        for rank, (_, text) in enumerate(lists):
            if text:
                raise EvaluatorError(f"records of process {rank} cannot be sent: {text}")
        return [item for part, _ in lists for item in pickle.loads(part)]

    def any(self, wants: bool) -> bool:
        """Whether the flag is true on any process; every process must call it.

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
            except RuntimeError as error:  # torch's only exception for a lost peer.
                if isinstance(error, ClusterError):
                    raise
                line = str(error).partition(". ")[0].rpartition("] ")[2] or str(error)
                raise ClusterError(
                    f"{self.watchdog.evaluator}: process {self.rank} lost another process"
                    f"{self.watchdog.last_status()}: {line}"
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
            if line := self.watchdog.stalled():
                _end_soon()
                raise ClusterError(line)


def _end_soon() -> None:
    """Make sure that this process ends, even if the error is swallowed.

    The pending collective blocks the interpreter's exit, and a launcher that sees no process fail
    keeps waiting, too.
    """
    if hasattr(signal, "alarm"):
        with suppress(ValueError):  # Not the main thread: signal handlers can only be set there.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_LAST_SECONDS)


def ranks_here(timeout: float = DEFAULT_TIMEOUT) -> ProcessGroup | None:
    """Return the process group of this run; None for a single process.

    The first call creates a process group, so every process must make it.

    Args:
        timeout: Heartbeat timeout in seconds; a silent process is then considered dead.
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
