"""A side process: its end, its children's, and that of the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agenttuning_plugin.evaluation.child_process import SideProcess

ROOT = Path(__file__).resolve().parents[3]

CHILD = """
import subprocess, sys, os
child = subprocess.Popen(["sleep", "300"])
print(os.getpid(), child.pid, sys.argv[1:], os.environ.get("RANK"), flush=True)
{then}
"""

STARTER = """
import sys, time
from pathlib import Path
from agenttuning_plugin.evaluation.child_process import SideProcess
process = SideProcess("side_job", ["a"], Path("log.txt"))
print("started", flush=True)
time.sleep(300)
"""


def job(folder: Path, then: str) -> dict[str, str]:
    (folder / "side_job.py").write_text(CHILD.format(then=then))
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def wait_for(condition: object, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.02)


def ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"  # Nobody has asked after an orphan yet.


def pids(log: Path) -> list[int]:
    wait_for(lambda: log.exists() and log.read_text().endswith("\n"))
    return [int(word) for word in log.read_text().split()[:2]]


def test_its_status_and_last_line_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    then = "print('last', flush=True); sys.exit(7)"
    process = SideProcess("side_job", ["a", "b c"], tmp_path / "x/log.txt", job(tmp_path, then))
    assert process.wait(30) == 7
    assert process.poll() == 7
    assert process.last_line() == "last"
    assert "['a', 'b c'] None" in process.log.read_text()
    # What it left behind ends with it.
    wait_for(lambda: ended(pids(process.log)[1]))
    process.stop()


def test_it_is_stopped_with_its_children(tmp_path: Path) -> None:
    then = "import time; time.sleep(300)"
    process = SideProcess("side_job", [], tmp_path / "log.txt", job(tmp_path, then))
    found = pids(process.log)
    assert process.poll() is None
    assert process.wait(0.01) is None
    process.stop()
    assert process.poll() is not None
    wait_for(lambda: all(map(ended, found)))
    process.stop()


def test_one_that_does_not_want_to_end_is_killed(tmp_path: Path) -> None:
    then = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(300)"
    process = SideProcess("side_job", [], tmp_path / "log.txt", job(tmp_path, then))
    found = pids(process.log)
    process.stop(grace=0.2)
    assert process.poll() == -signal.SIGKILL
    wait_for(lambda: all(map(ended, found)))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_it_ends_with_the_process_that_started_it(tmp_path: Path, number: signal.Signals) -> None:
    environment = os.environ | job(tmp_path, "import time; time.sleep(300)")
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
    )
    found = pids(tmp_path / "log.txt")
    assert not any(map(ended, found))
    starter.send_signal(number)
    starter.wait(10)
    wait_for(lambda: all(map(ended, found)))
