"""Base class of the sandboxes, independent of the engine that starts commands."""

from __future__ import annotations

import contextlib
import posixpath
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from dataset_builders.sandbox.base import ExecResult, Limits, SandboxError, ShellResult
from dataset_builders.sandbox.shell import COMMAND, Shell
from dataset_builders.sandbox.streams import Window, communicate

_END_SECONDS = 10.0
"""Seconds for a killed command to exit."""
_EXIT_SECONDS = 0.5
"""Seconds for a shell that has closed its output to exit by itself."""
_STOP_AGAIN_SECONDS = 0.1
"""Seconds for the helpers of a killed command to exit, before the box is killed again."""


class EngineSandbox(ABC):
    """A `Sandbox` that starts commands through helper processes.

    Args:
        limits: Resource limits.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._shell: Shell | None = None
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    @abstractmethod
    def _spawn(
        self, cmd: Sequence[str], cwd: str, env: Mapping[str, str], *, merged: bool
    ) -> subprocess.Popen[bytes]:
        """Start a command with pipes; `merged` merges both outputs."""

    @abstractmethod
    def _stop(self) -> None:
        """Kill every process of the sandbox except the one that keeps it open."""

    @property
    @abstractmethod
    def _alive(self) -> bool:
        """Whether the sandbox still exists."""

    @abstractmethod
    def _end(self) -> None:
        """Remove the sandbox; called once."""

    def exec(
        self,
        cmd: Sequence[str],
        input: str | bytes = b"",
        cwd: str = "/",
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> ExecResult:
        """Run a command, outside of the shell; see `Sandbox.exec`."""
        data = input.encode("utf-8", "replace") if isinstance(input, str) else input
        status, out, err, early = self._run(cmd, data, cwd, env or {}, timeout)
        return ExecResult(
            success=status == 0 and not early,
            returncode=status,
            stdout=out.text(),
            stderr=err.text(),
            timed_out=early == "timed_out",
            flooded=early == "flooded",
        )

    def _run(
        self,
        cmd: Sequence[str],
        data: bytes,
        cwd: str,
        env: Mapping[str, str],
        timeout: float | None,
    ) -> tuple[int, Window, Window, str]:
        self._check()
        seconds = self.limits.seconds if timeout is None else timeout
        process = self._start_process(cmd, cwd, env, merged=False)
        try:
            out, err, early = communicate(
                process, data, self.limits.output, self.limits.flood, seconds
            )
        except BaseException:
            self._stop_all(process)
            raise
        if early:
            self._stop_all(process)
        return self._reap(process), out, err, early

    def run_shell(
        self,
        script: str,
        *,
        silence: float | None = None,
        timeout: float | None = None,
        keep_input: bool = False,
    ) -> ShellResult:
        """Run a script in the persistent shell; see `Sandbox.run_shell`."""
        self._check()
        # A script is sent only once, so that it cannot run twice: check the shell first.
        if self._shell is not None and not self._shell.answers():
            self._end_shell(at_once=False)
        if self._shell is None:
            self._shell = Shell(self._start_process(COMMAND, "/", {}, merged=True), self.limits)
        try:
            result = self._shell.run(script, silence, timeout, keep_input)
        except BaseException:
            self._stop_all()
            raise
        if result.returncode is None:
            self._end_shell(at_once=result.timed_out or result.flooded)
        return result

    def read_file(self, file: str) -> bytes:
        """Read a file of the sandbox; see `Sandbox.read_file`."""
        # `cat` runs in the box, so no link can lead out of it.
        status, out, err, early = self._run(["/bin/cat", "--", file], b"", "/", {}, None)
        if status or early:
            raise FileNotFoundError(err.text().strip() or f"{file}: cannot be read")
        if out.total > len(out.head):
            limit = self.limits.output
            raise SandboxError(f"{file}: found {out.total} bytes, expected at most {limit}")
        return bytes(out.head)

    def write_file(self, file: str, contents: str | bytes) -> None:
        """Write a file of the sandbox; see `Sandbox.write_file`."""
        script = 'mkdir -p -- "$1" && cat > "$2"'
        folder = posixpath.dirname(file) or "/"
        result = self.exec(["/bin/sh", "-c", script, "sh", folder, file], contents)
        if not result.success:
            raise SandboxError(f"{file}: {result.stderr.strip() or 'cannot be written'}")

    def close(self) -> None:
        """Kill every process of the sandbox and free its resources; may be called again."""
        if not self._closed:
            self._closed = True
            self._shell = None
            self._end()

    def _start_process(
        self, cmd: Sequence[str], cwd: str, env: Mapping[str, str], *, merged: bool
    ) -> subprocess.Popen[bytes]:
        process = self._spawn(cmd, cwd, env, merged=merged)
        self._processes.add(process)
        return process

    @property
    def _monitors(self) -> set[int]:
        """Our own child processes, which end once the commands that they wait for have ended.

        Killed themselves, they would leave those commands to the host's first process.
        """
        return {process.pid for process in self._processes}

    def _reap(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for a process whose command has ended, and close its pipes."""
        try:
            status = process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            raise _endless(process) from None
        self._processes.discard(process)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()
        return status

    def _reap_all(self) -> None:
        while self._processes:
            self._reap(next(iter(self._processes)))

    def _stop_all(self, *leading: subprocess.Popen[bytes]) -> None:
        """Kill the sandbox's processes until these helper processes, and the shell's, have ended.

        Once is not enough: a helper that has not yet started its command would start it afterwards.
        """
        shell, self._shell = self._shell, None
        if shell:
            leading = (*leading, shell.process)
        deadline = time.monotonic() + _END_SECONDS
        self._stop()
        while left := [process for process in leading if process.poll() is None]:
            if time.monotonic() > deadline:
                raise _endless(left[0])
            try:
                left[0].wait(_STOP_AGAIN_SECONDS)
            except subprocess.TimeoutExpired:
                if self._alive:
                    self._stop()
        if shell:
            self._reap(shell.process)

    def _end_shell(self, at_once: bool) -> None:
        if self._shell is None:
            return
        if not at_once:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._shell.process.wait(_EXIT_SECONDS)
                self._reap(self._shell.process)
                self._shell = None
                return
        self._stop_all()

    def _check(self) -> None:
        if self._closed:
            raise SandboxError("the box is closed")
        if not self._alive:
            raise SandboxError("the box has ended: its first process is gone")


def _endless(process: subprocess.Popen[bytes]) -> SandboxError:
    return SandboxError(f"a command of the box does not end (pid {process.pid})")
