"""Run an inference server as a child process, until it is interrupted."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from agenttuning_plugin.console import writing
from agenttuning_plugin.evaluation.server import RouteError, Server
from agenttuning_plugin.serving.command import ServeCommand
from dataset_builders.errors import AgentTuningError, ConfigError

LOG = "server.log"

_SECONDS_TO_END = 20.0
_CAUSE = re.compile(r"\b\w*(?:Error|Exception): .+")


class ServerProcessError(AgentTuningError, RuntimeError):
    """A server ended unexpectedly."""


def check_port(host: str, port: int) -> None:
    """Check that nothing listens at a port.

    Raises:
        ConfigError: The port is in use, or the address is unknown or not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a port that was closed a moment ago is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except socket.gaierror as error:
            raise ConfigError(f"`host`: found {host!r}: {error.strerror or error}") from error
        except OSError as error:
            raise ConfigError(
                f"`port`: {host}:{port} cannot be used ({error.strerror or error}): stop what "
                "listens there, or choose another port"
            ) from error


@contextmanager
def running(command: ServeCommand, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server in a process group of its own; end the group on leaving.

    Ctrl-C and SIGTERM leave the context with KeyboardInterrupt.

    Args:
        command: The server.
        log: File for its output, replaced.

    Raises:
        ConfigError: The program cannot be started.
        StorageError: The log cannot be written.
    """
    variables = {**os.environ, **command.variables}
    with writing(log):
        output = log.open("wb")
    with output:
        try:
            process = subprocess.Popen(
                command.arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=variables,
                start_new_session=True,  # Ctrl-C is for this process, which then ends the group.
            )
        except OSError as error:
            raise ConfigError(f"{command.arguments[0]}: cannot be started: {error}") from error
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield process
    finally:
        signal.signal(signal.SIGTERM, before)
        _end(process)


def wait_until_up(process: subprocess.Popen[bytes], command: ServeCommand, log: Path) -> float:
    """Wait until the server answers.

    Returns:
        Seconds that it took.

    Raises:
        ServerProcessError: It ended, see `ended`.
    """
    start, server = time.monotonic(), Server(command.base_url, seconds=5.0)
    while process.poll() is None:
        with suppress(RouteError):
            server.call("health", root=True)
            return time.monotonic() - start
        time.sleep(0.5)
    raise ended(process, log)


def ended(process: subprocess.Popen[bytes], log: Path) -> ServerProcessError:
    """Return the error of a server that ended by itself, with the cause that its log states."""
    text = log.read_text("utf-8", "replace").strip()
    # The first error is the cause: those of the processes that wait for it follow.
    cause = _CAUSE.search(text)
    line = cause[0] if cause else text.rpartition("\n")[2]
    return ServerProcessError(
        f"the server ended with exit status {process.poll()}: {line or 'no output'} (log: {log})"
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process group with SIGINT, after a timeout with SIGKILL."""
    for number, seconds in ((signal.SIGINT, _SECONDS_TO_END), (signal.SIGKILL, None)):
        # The engine of vLLM is a process of its own, which may outlive the server.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
