"""Child process of `isolated`: plays one dialogue for its parent.

Standard input is the lifeline: nothing is written to it, and it closes when the parent
ends, in whatever way. The kernel then sends SIGIO, which ends this process even in the
middle of a library call that holds the interpreter. Its own child processes, such as a browser and
its driver, are killed by a guard: a second process that only waits for this one to end.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
from collections.abc import Generator
from multiprocessing.connection import Connection
from typing import Any

from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.errors import AgentTuningError, EnvironmentFailureError
from dataset_builders.user_code import one_line

_STDIN = 0


def main() -> None:
    """Serve calls until the parent closes the pipe, whose file descriptor is the only argument."""
    _guard()
    _end_with_parent()
    pipe: Connection[Any, Any] = Connection(int(sys.argv[1]))
    try:
        spec, prompt = pipe.recv()
        host = _Host(spec.make(prompt))
        pipe.send(None)  # Started: from now on the limit of a call counts.
        serve(pipe, host)
    except (EOFError, OSError):
        pass
    # Game libraries have hung in their own clean-up.
    os._exit(0)


def serve(pipe: Connection[Any, Any], host: _Host) -> None:
    """Answer calls with an error that can be pickled, or None, and the result."""
    while True:
        method, arguments, settings = pipe.recv()
        try:
            result = host.call(method, *arguments, **settings)
        except Exception as error:
            pipe.send((_tellable(error), None))
        else:
            pipe.send((None, result))


class _Host:
    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue = dialogue
        self._oracle: Generator[str, str, None] | None = None

    def call(self, method: str, *arguments: Any, **settings: Any) -> Any:
        if method == "oracle":
            return self._oracle_turn(*arguments)
        if method == "reset":
            self._oracle = None
        return getattr(self._dialogue, method)(*arguments, **settings)

    def _oracle_turn(self, *observation: str) -> str | None:
        try:
            if self._oracle is None or not observation:
                self._oracle = self._dialogue.oracle()
                return next(self._oracle)
            return self._oracle.send(*observation)
        except StopIteration:
            return None


def _guard() -> None:
    """Kill the rest of this process group once this process has ended."""
    if os.getpgrp() != os.getpid():
        return  # Not our own session: other processes would be killed too.
    alive, _mine = os.pipe()  # The kernel closes `_mine` at the latest when this process ends.
    if os.fork():
        os.close(alive)
        return
    # Other inherited descriptors would keep other processes waiting.
    os.closerange(0, alive)
    os.closerange(alive + 1, min(os.sysconf("SC_OPEN_MAX"), 2**16))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.read(alive, 1)
    os.killpg(0, signal.SIGKILL)


def _end_with_parent() -> None:
    fcntl.fcntl(_STDIN, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(_STDIN, fcntl.F_GETFL)
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(_STDIN, fcntl.F_SETFL, flags | os.O_ASYNC)
    # It may have closed before the signal was requested.
    if select.select([_STDIN], [], [], 0)[0]:
        os._exit(0)


def _tellable(error: Exception) -> Exception:
    """Return an error that the parent can unpickle: ours unchanged, others by their name."""
    if isinstance(error, AgentTuningError):
        return type(error)(str(error))
    return EnvironmentFailureError(one_line(error))
