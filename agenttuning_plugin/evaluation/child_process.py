"""Child process beside a training run, ended with the run at the latest."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

_LAUNCHER = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)
"""Variables that torchrun sets for a process of a group; a child process belongs to none."""


class SideProcess:
    """A Python module run in its own process group.

    It holds one end of a pipe and this process the other: when this process ends for any reason,
    the whole group is killed.

    Args:
        module: Module to run, as by `python -m`.
        arguments: Its arguments.
        log: File for its output; appended to.
        environment: Variables in addition to this process's own.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        variables = {k: v for k, v in os.environ.items() if k not in _LAUNCHER}
        # Output is read from the file while the process runs.
        variables |= {"PYTHONUNBUFFERED": "1", **(environment or {})}
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, module, *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=variables,
            )

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its group."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while it runs."""
        status = self._process.poll()
        if status is not None:
            self._close()
        return status

    def wait(self, seconds: float | None = None) -> int | None:
        """Wait for its end, up to a timeout.

        Returns:
            The exit status, or None if it still runs.
        """
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        return self.poll()

    def stop(self, grace: float = 5.0) -> None:
        """Stop it and its descendants; may be called more than once.

        Args:
            grace: Seconds to exit by itself.
        """
        if self.poll() is None:
            self._signal(signal.SIGINT)
            self.wait(grace)
        if self.poll() is None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._close()

    def last_line(self) -> str:
        """Return the last line of its output, for messages; "" if there is none."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
                lines = file.read().decode("utf-8", "replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):  # No process of the group is left.
            os.killpg(self._process.pid, number)

    def _close(self) -> None:
        pipe = self._process.stdin
        if pipe is not None and not pipe.closed:
            pipe.close()
            self._signal(signal.SIGKILL)  # Its remaining children.


def main() -> None:
    """Run a module until it ends, or until the process that started this one does."""
    # Children must neither read the pipe as their input nor wait for the terminal.
    pipe = os.fdopen(os.dup(0), "rb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
    # Ignored, where a shell started the run in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _end_with(pipe: IO[bytes]) -> None:
    pipe.read()
    # Exit immediately: finished results are on disk.
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main()
