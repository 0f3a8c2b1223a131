"""Signs of life of the processes of an evaluation, so that none is waited for in vain."""

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
"""A process that stands still ends itself after so many timeouts: later than one that waits for
it would, which can say more."""


_PACKAGES = tuple(
    str(Path(__file__).resolve().parents[2] / name) for name in ("evaluators", "dataset_builders")
)


@dataclass(slots=True)
class _Heard:
    """What was last heard of a process, and when."""

    text: str = ""
    at: float = field(default_factory=time.monotonic)


class Heartbeat:
    """Publishes what this process does, and reads what the others do.

    Waiting is no sickness: a process may take as long as it wants as long as it goes on, that
    is, calls the model or finishes an item. One that does not for `timeout` seconds is overdue.
    Signs of life go through the key-value store of the process group and not through
    collectives, which a process that hangs cannot join.

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
        """Publish signs of life while an evaluator runs."""
        self.evaluator, self._main = evaluator, threading.get_ident()
        self._serial += 1
        self._heard = {rank: _Heard() for rank in range(self._size)}
        self.beat("starts")
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

    def beat(self, doing: str = "") -> None:
        """This process goes on; what it does, unless that is what it did before."""
        self._since = time.monotonic()
        self._doing = doing or self._doing

    @contextmanager
    def following(self, model: Any) -> Iterator[None]:
        """Take each forward pass for a sign of life, where somebody else calls the model."""
        # Every pass begins there; the outermost module is passed by in `generate` of an adapter.
        hook = model.get_input_embeddings().register_forward_pre_hook(lambda *_: self.beat())
        try:
            yield
        finally:
            hook.remove()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Waits for other processes: standing still is not its fault."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False
            self._since = time.monotonic()

    def overdue(self) -> str:
        """One line that names the processes that stand still; "" if there is none."""
        told = {rank: self._hear(rank) for rank in range(self._size) if rank != self._rank}
        late = sorted(rank for rank, (idle, _) in told.items() if idle > self.timeout)
        if not late:
            return ""
        return (
            f"{self.evaluator}: {_names(late)} stood still for more than {self.timeout:g} s while "
            f"process {self._rank} waited ({_listed(told)})"
        )

    def last_words(self) -> str:
        """What was last heard of the other processes; "" where nothing can be heard."""
        try:
            told = {rank: self._hear(rank) for rank in range(self._size) if rank != self._rank}
        except RuntimeError:
            return ""
        return f" ({_listed(told)})"

    def _hear(self, rank: int) -> tuple[float, str]:
        """Seconds for which a process stands still, and what it does."""
        heard, key = self._heard[rank], self._key(rank)
        text = self._store.get(key).decode() if self._store.check([key]) else ""
        if text != heard.text:
            self._heard[rank] = heard = _Heard(text)
        # One whose last words are old is counted as idle since then: stopped, or cut off.
        silent = time.monotonic() - heard.at
        if not text:
            return silent, "has not begun"
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
                # No exception reaches a main thread that hangs in a call.
                print(f"ended: {self._own_line(idle)}", file=sys.stderr, flush=True)
                os._exit(1)

    def _idle(self) -> float:
        return 0.0 if self._waits else time.monotonic() - self._since

    def _own_line(self, idle: float) -> str:
        return f"{self.evaluator}: process {self._rank} stands still for {idle:.0f} s: " + (
            f"{self._doing}{self._place()}"
        )

    def _publish(self) -> bool:
        sign = {
            "number": time.monotonic(),  # Never the same twice.
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
        """Where a process that stands still is: its innermost line, and our innermost one."""
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
