"""Heartbeats of the processes of an evaluation, to detect stalled or dead ranks."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOG = logging.getLogger(__name__)

_GRACE = 1.5
"""A stalled process ends itself after this many timeouts: later than the rank that waits for it,
whose message has more information."""


_PACKAGES = tuple(
    str(Path(__file__).resolve().parents[2] / name) for name in ("evaluators", "dataset_builders")
)


@dataclass(slots=True)
class _Heard:
    """Last status received from a process, and when."""

    text: str = ""
    at: float = field(default_factory=time.monotonic)


class Heartbeat:
    """Publishes this process's heartbeat, and monitors those of the others.

    A process may take any time as long as it makes progress, that is, calls the model or finishes
    an item. One that does not for `timeout` seconds counts as stalled. Heartbeats go through the
    key-value store of the process group and not through collectives, which a hanging process cannot
    join.

    Args:
        store: The store of the process group (`torch.distributed.Store`).
        rank: Number of this process.
        size: Number of processes.
        timeout: Seconds.
    """

    def __init__(self, store: Any, rank: int, size: int, timeout: float) -> None:
        self.timeout = timeout
        self._store = store
        self._rank, self._size = rank, size
        self.evaluator = ""
        self._doing = ""
        self._since = time.monotonic()
        self._waits = False
        self._serial = 0
        self._heard: dict[int, _Heard] = {}
        self._main = threading.get_ident()

    @contextmanager
    def watching(self, evaluator: str) -> Iterator[None]:
        """Publish heartbeats while an evaluator runs."""
        self.evaluator, self._main = evaluator, threading.get_ident()
        self._serial += 1
        self._heard = {rank: _Heard() for rank in range(self._size)}
        self.ping("starts")
        over = threading.Event()
        thread = threading.Thread(
            target=self._watch, args=(over,), name="agenttuning-watchdog", daemon=True
        )
        self._publish()
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.evaluator = ""

    def ping(self, doing: str = "") -> None:
        """Record progress, with a new status if given."""
        self._since = time.monotonic()
        self._doing = doing or self._doing

    @contextmanager
    def following(self, model: Any) -> Iterator[None]:
        """Count each forward pass as progress, for models that are called by other code."""
        # Every pass starts there; an adapter's `generate` bypasses the outermost module.
        hook = model.get_input_embeddings().register_forward_pre_hook(lambda *_: self.ping())
        try:
            yield
        finally:
            hook.remove()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Mark this process as waiting for others: it is not stalled itself."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False
            self._since = time.monotonic()

    def stalled(self) -> str:
        """Return one line that names the stalled processes; "" if there are none."""
        statuses = {rank: self._hear(rank) for rank in range(self._size) if rank != self._rank}
        late = sorted(rank for rank, (idle, _) in statuses.items() if idle > self.timeout)
        if not late:
            return ""
        return (
            f"{self.evaluator}: {_names(late)} made no progress for more than {self.timeout:g} s "
            f"while process {self._rank} waited ({_listed(statuses)})"
        )

    def last_status(self) -> str:
        """Return the last status of the other processes; "" if unavailable."""
        try:
            statuses = {rank: self._hear(rank) for rank in range(self._size) if rank != self._rank}
        except RuntimeError:
            return ""
        return f" ({_listed(statuses)})"

    def _hear(self, rank: int) -> tuple[float, str]:
        """Return the seconds since a process made progress, and its status."""
        heard, key = self._heard[rank], self._key(rank)
        text = self._store.get(key).decode() if self._store.check([key]) else ""
        if text != heard.text:
            self._heard[rank] = heard = _Heard(text)
        # One whose last heartbeat is old counts as idle since then: stopped, or disconnected.
        silent = time.monotonic() - heard.at
        if not text:
            return silent, "has not started"
        sign = json.loads(text)
        if silent > self.timeout:
            return silent, f"{sign['doing']}, then silent"
        return 0.0 if sign["waits"] else sign["idle"], sign["doing"]

    def _watch(self, over: threading.Event) -> None:
        warned = False
        while not over.wait(min(self.timeout / 5, 10.0)):
            if not self._publish():
                return  # The store is gone, and so is the run.
            idle = self._idle()
            warned = warned and idle > self.timeout
            if idle > self.timeout and not warned:
                warned = True
                LOG.warning("%s", self._own_line(idle))
            if idle > _GRACE * self.timeout:
                # A main thread that hangs in a call cannot receive an exception.
                print(f"ended: {self._own_line(idle)}", file=sys.stderr, flush=True)
                os._exit(1)

    def _idle(self) -> float:
        return 0.0 if self._waits else time.monotonic() - self._since

    def _own_line(self, idle: float) -> str:
        return f"{self.evaluator}: process {self._rank} has made no progress for {idle:.0f} s: " + (
            f"{self._doing}{self._place()}"
        )

    def _publish(self) -> bool:
        sign = {
            "number": time.monotonic(),  # Never the same value twice.
            "idle": self._idle(),
            "waits": self._waits,
            "doing": "waits" if self._waits else self._doing + self._place(),
        }
        try:
            self._store.set(self._key(self._rank), json.dumps(sign))
        except RuntimeError:
            return False
        return True

    def _place(self) -> str:
        """Return where a stalled process is: its innermost line, and our innermost one."""
        frame = sys._current_frames().get(self._main)
        if frame is None or self._idle() < self.timeout / 2:
            return ""
        stack = traceback.extract_stack(frame)
        ours = [line for line in stack if line.filename.startswith(_PACKAGES)]
        places = dict.fromkeys(_spelt(line) for line in (stack[-1], *ours[-1:]))
        return f", at {', called at '.join(places)}"

    def _key(self, rank: int) -> str:
        return f"agenttuning/watchdog/{self._serial}/{rank}"


def _spelt(line: traceback.FrameSummary) -> str:
    return f"{Path(line.filename).name}:{line.lineno} in {line.name}"


def _listed(told: dict[int, tuple[float, str]]) -> str:
    return "; ".join(f"process {rank}: {doing}" for rank, (_, doing) in sorted(told.items()))


def _names(ranks: list[int]) -> str:
    word = "process" if len(ranks) == 1 else "processes"
    return f"{word} {', '.join(map(str, ranks))}"
