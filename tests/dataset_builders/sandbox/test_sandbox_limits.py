"""Attacks on the limits of a sandbox, and on its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dataset_builders.sandbox import engines
from dataset_builders.sandbox.base import Sandbox
from dataset_builders.sandbox.bubblewrap import BubblewrapSandbox
from dataset_builders.sandbox.cgroups import owner_name, parents
from tests.dataset_builders.sandbox.test_sandbox_attacks import REPO, bubblewrap
from tests.support.boxes import needs_box


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def groups_of(pid: int) -> list[Path]:
    return [g for parent in parents() for g in parent.glob(f"agenttuning-*-{pid}-*-*")]


def running(mark: str) -> list[str]:
    """Processes of the whole machine whose command line has the mark."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes()
        except OSError:
            continue
        if mark.encode() in line:
            found.append(file.parent.name)
    return found


def test_memory_is_capped(small_box: Sandbox) -> None:
    result = small_box.exec(["python3", "-c", "x = bytearray(300 << 20); print(len(x))"])
    assert not result.success
    assert "3145" not in result.stdout
    eater = small_box.run_shell("x=$(head -c 300M /dev/zero | tr '\\0' x); echo ${#x}")
    assert "314572800" not in eater.output
    assert small_box.run_shell("echo on").output == "on\n"


def test_disk_is_capped(small_box: Sandbox) -> None:
    for place in ("/root/fill", "/tmp/fill", "/var/fill"):
        result = small_box.exec(["dd", "if=/dev/zero", f"of={place}", "bs=1M", "count=64"])
        assert "No space left" in result.stderr
        small_box.exec(["rm", place])
    small_box.exec(["dd", "if=/dev/zero", "of=/dev/shm/fill", "bs=1M", "count=300"])
    # Many empty files would fill memory as well.
    many = "i=0; while : > /root/f$i; do i=$((i + 1)); done 2> /dev/null; echo $i"
    assert int(small_box.run_shell(many).output) < 2_000
    assert small_box.run_shell("rm -f /root/f*; echo on").output == "on\n"


@pytest.mark.parametrize(
    "bomb",
    [":(){ :|:& };:", "f() { f & f & }; f", "while :; do sleep 100 & done 2> /dev/null"],
)
def test_a_fork_bomb_is_held(small_box: Sandbox, bomb: str) -> None:
    small_box.run_shell(f"{bomb}; sleep 0.3", timeout=2)
    group = bubblewrap(small_box)._group
    assert len(group.pids()) <= 40
    # A command that is stopped takes the bomb with it, and the box is of use again.
    small_box.exec(["sleep", "60"], timeout=0.5)
    if len(group.pids()) > 10:
        small_box.run_shell("sleep 60", timeout=0.5)
    small_box.run_shell("true", timeout=5)
    assert small_box.exec(["echo", "on"]).stdout == "on\n"


def test_nothing_runs_outside_of_its_control_group(box: Sandbox, tmp_path: Path) -> None:
    group = bubblewrap(box)._group
    folders = group.folders
    group.folders = (tmp_path / "absent", *folders[1:])
    result = box.exec(["echo", "on"])
    group.folders = folders
    assert (result.stdout, result.returncode) == ("", 125)


def test_the_limits_cannot_be_raised_from_within(small_box: Sandbox) -> None:
    assert (
        small_box.exec(["sh", "-c", "find / -name 'memory*limit*' -o -name pids.max"]).stdout == ""
    )
    assert not small_box.exec(["mount", "-t", "cgroup2", "none", "/mnt"]).success
    assert "agenttuning" not in small_box.exec(["cat", "/proc/self/cgroup"]).stdout
    assert not small_box.exec(["sh", "-c", "ulimit -n 99999999"]).success


def test_killing_everything_kills_the_box_only(box: Sandbox) -> None:
    box.run_shell("sleep 100 & echo kept > /root/file")
    for _ in range(5):
        assert not box.exec(["bash", "-c", "kill -9 -1; kill -9 $$"]).success
        assert box.run_shell("cat /root/file").output == "kept\n"


def test_nothing_is_left_behind() -> None:
    needs_box()
    mounts = Path("/proc/self/mountinfo").read_text()
    made = engines.open_sandbox()
    mark = f"3{os.getpid()}.25"
    made.run_shell(f"setsid nohup sleep {mark} & disown; (trap '' HUP TERM; sleep {mark}) &")
    made.exec(["bash", "-c", f"setsid sleep {mark} >/dev/null 2>&1 &"])
    assert wait_for(lambda: len(running(mark)) >= 3)
    made.close()
    assert running(mark) == []
    assert groups_of(os.getpid()) == []
    assert Path("/proc/self/mountinfo").read_text() == mounts
    if isinstance(made, BubblewrapSandbox):
        assert list((made._folder / "work").iterdir()) == []


@pytest.mark.parametrize("busy", [False, True])
def test_a_box_dies_with_its_owner(busy: bool) -> None:
    """As after kill -9, when nothing of ours can clean up any more."""
    needs_box()
    mark = f"4{os.getpid()}.{int(busy)}5"
    code = (
        "from dataset_builders.sandbox.engines import open_sandbox\n"
        "box = open_sandbox()\n"
        f"box.run_shell('setsid sleep {mark} & sleep {mark} &')\n"
        "print('ready', flush=True)\n"
        + ("box.run_shell('while :; do :; done', timeout=60)" if busy else "input()")
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        assert running(mark)
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        assert wait_for(lambda: not running(mark))
    # Only the empty groups stay, and the next start removes them.
    parents.cache_clear()
    assert wait_for(lambda: bool(parents()) and not groups_of(owner.pid))
    parents.cache_clear()


def test_a_box_dies_with_an_owner_killed_while_it_starts() -> None:
    needs_box()
    code = (
        "import os\n"
        "from dataset_builders.sandbox import bubblewrap, engines\n"
        # Bubblewrap has been started, and nobody will read what it tells.
        "bubblewrap.os.fdopen = lambda descriptor: os.kill(os.getpid(), 9)\n"
        "engines.open_sandbox()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPO) as owner:
        assert owner.wait() == -signal.SIGKILL
    groups = groups_of(owner.pid)
    assert groups
    time.sleep(1)  # Until it has joined the groups.
    assert wait_for(lambda: not any((g / "cgroup.procs").read_text() for g in groups))
    parents.cache_clear()
    parents()


def test_what_outlives_its_owner_is_swept() -> None:
    """A box may rewrite its first process so that it waits no longer; the next start ends it."""
    needs_box()
    mark = f"5{os.getpid()}.125"
    gone = owner_name(999999999)
    folders = [parent / f"agenttuning-{gone.removesuffix('0')}7-0" for parent in parents()]
    for folder in folders:
        folder.mkdir()
    script = "for group in $1; do echo 0 > $group/cgroup.procs; done; exec sleep $2"
    paths = " ".join(map(str, folders))
    with subprocess.Popen(["sh", "-c", script, "sh", paths, mark]) as left:
        assert wait_for(lambda: (folders[0] / "cgroup.procs").read_text() != "")
        parents.cache_clear()
        parents()
        assert left.wait(5) == -signal.SIGKILL
    parents.cache_clear()
    parents()
    assert not any(folder.exists() for folder in folders)
