"""Interface of a sandbox, and its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dataset_builders.errors import EnvironmentFailureError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT: Mapping[str, str] = {
    "PATH": PATH,
    "HOME": "/root",
    "USER": "root",
    "LOGNAME": "root",
    "SHELL": "/bin/bash",
    "TERM": "dumb",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}
"""Environment variables of a command; the host's environment is not passed on."""

# What a container engine grants for managing users and files, without network, devices and
# chroot. None of them has an effect outside the sandbox's own files and processes.
CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
)


class SandboxError(EnvironmentFailureError):
    """A sandbox could not be created, or broke; not caused by the command in it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits of a sandbox.

    Attributes:
        memory: Bytes of memory, including its changed files; there is no swap.
        disk: Bytes its changed files may take. They are kept in memory.
        files: Files it may change or make.
        processes: Processes and threads at one time.
        output: Bytes of a command's output that are kept, per stream.
        flood: Bytes written after which a command is stopped.
        seconds: Default time limit of a command.
    """

    memory: int = 512 * 1024**2
    disk: int = 256 * 1024**2
    files: int = 100_000
    processes: int = 128
    output: int = 64 * 1024
    flood: int = 64 * 1024**2
    seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class ExecResult:
    """Result of a command.

    Attributes:
        success: Whether it exited by itself with status 0.
        returncode: Its status; negative for a signal.
        stdout: Its output, at most `Limits.output` bytes, decoded with replacement.
        stderr: Likewise.
        timed_out: Whether it was killed at the time limit.
        flooded: Whether it was killed at the output limit.
    """

    success: bool
    returncode: int
    stdout: str
    stderr: str
    timed_out: bool = False
    flooded: bool = False


@dataclass(frozen=True, slots=True)
class ShellResult:
    """Result of a script in a persistent shell.

    Attributes:
        output: Its output on both streams, at most `Limits.output` bytes.
        returncode: Status of its last command; None if the shell did not get that far.
        timed_out: Whether it was killed at the time limit.
        flooded: Whether it was killed at the output limit.
    """

    output: str
    returncode: int | None
    timed_out: bool = False
    flooded: bool = False


class Sandbox(Protocol):
    """An isolated machine for commands: root user, private file system, no network.

    Killing a command kills all other processes of the sandbox, because none of them can be
    distinguished from its children; files stay. An object may be used by one thread at a time; many
    objects may exist in parallel.
    """

    def exec(
        self,
        cmd: Sequence[str],
        input: str | bytes = b"",
        cwd: str = "/",
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> ExecResult:
        """Run a command, outside of the shell.

        Args:
            cmd: Program and arguments.
            input: Its standard input.
            cwd: Folder in the sandbox.
            env: Variables in addition to `ENVIRONMENT`.
            timeout: Seconds; None for `Limits.seconds`.

        Raises:
            SandboxError: The sandbox is closed or broken.
        """

    def run_shell(
        self,
        script: str,
        *,
        silence: float | None = None,
        timeout: float | None = None,
        keep_input: bool = False,
    ) -> ShellResult:
        """Run a script in the sandbox's one persistent login shell: variables and folder persist.

        A shell that has exited, or was killed, is replaced by a new one.

        Args:
            script: Bash.
            silence: Seconds without output after which it is killed; None for no limit.
            timeout: Seconds; None for `Limits.seconds`.
            keep_input: Let the script read the shell's own input, as `su - NAME` must, so that
                later scripts go to its shell. Otherwise its input is empty.

        Raises:
            SandboxError: The sandbox is closed or broken.
        """

    def read_file(self, file: str) -> bytes:
        """Read a file of the sandbox; links are followed within the sandbox.

        Raises:
            FileNotFoundError: It cannot be read.
            SandboxError: It has more than `Limits.output` bytes, or the sandbox is broken.
        """

    def write_file(self, file: str, contents: str | bytes) -> None:
        """Write a file of the sandbox, creating its folders.

        Raises:
            SandboxError: It cannot be written.
        """

    def close(self) -> None:
        """Kill every process of the sandbox and free its resources; may be called again."""
