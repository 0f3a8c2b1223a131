"""What a box does: commands, the lasting shell, files, limits on time and output."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_builders.errors import MissingExtraError
from dataset_builders.sandbox import docker, engines, rootfs
from dataset_builders.sandbox.base import Limits, Sandbox, SandboxError
from dataset_builders.sandbox.streams import Window, communicate
from tests.support.boxes import needs_box


def test_a_command_has_its_own_streams_and_status(box: Sandbox) -> None:
    result = box.exec(["sh", "-c", "cat; echo oops >&2; exit 3"], input="in")
    assert (result.stdout, result.stderr, result.returncode) == ("in", "oops\n", 3)
    assert not result.success
    assert not result.timed_out
    told = box.exec(["sh", "-c", "pwd; echo $A $HOME; id -u"], cwd="/tmp", env={"A": "b c"})
    assert told.stdout == "/tmp\nb c /root\n0\n"
    assert box.exec(["/no/such"]).returncode != 0


def test_the_shell_lasts(box: Sandbox) -> None:
    assert box.run_shell("cd /usr; A=7; f() { echo f$A; }").returncode == 0
    assert box.run_shell("pwd; f; false").output == "/usr\nf7\n"
    assert box.run_shell("false").returncode == 1
    assert box.run_shell("cat; read -r x; echo [$x]").output == "[]\n"
    assert "syntax error" in box.run_shell("if then").output
    assert box.run_shell("printf 'no end'").output == "no end"
    assert box.run_shell("printf x; builtin() { :; }; unset -f builtin").output == "x"


def test_a_shell_that_ends_is_replaced(box: Sandbox) -> None:
    box.run_shell("cd /usr; echo kept > /root/file")
    gone = box.run_shell("echo bye; exit 4")
    assert (gone.output, gone.returncode) == ("bye\n", None)
    assert box.run_shell("pwd; cat /root/file").output == "/\nkept\n"


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_su_opens_a_shell_that_lasts(box: Sandbox, shell: str) -> None:
    box.run_shell(f"useradd -m -s /bin/{shell} ann")
    box.run_shell("su - ann", keep_input=True)
    assert box.run_shell("whoami; pwd").output == "ann\n/home/ann\n"
    assert box.exec(["whoami"]).stdout == "root\n"


def test_a_traced_shell_shows_the_script_only(box: Sandbox) -> None:
    assert box.run_shell("set -x").output == ""
    assert box.run_shell("echo on").output == "+ eval 'echo on'\n++ echo on\non\n"


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_text_comes_back_as_it_was(box: Sandbox, text: str) -> None:
    quoted = "'" + text.replace("'", "'\\''") + "'"
    assert box.run_shell(f"printf %s {quoted}").output == text


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(contents=st.binary(max_size=3000))
def test_files_hold_any_bytes(box: Sandbox, contents: bytes) -> None:
    box.write_file("/srv/a folder/-file", contents)
    assert box.read_file("/srv/a folder/-file") == contents


def test_files_that_cannot_be_had(box: Sandbox) -> None:
    with pytest.raises(FileNotFoundError, match="No such file"):
        box.read_file("/absent")
    with pytest.raises(FileNotFoundError, match="directory"):
        box.read_file("/etc")
    with pytest.raises(SandboxError, match="/proc/x"):
        box.write_file("/proc/x", "no")
    box.exec(["truncate", "-s", "1M", "/big"])
    with pytest.raises(SandboxError, match="found 1048576 bytes"):
        box.read_file("/big")


@pytest.mark.parametrize(
    "script", ["sleep 60", "while :; do :; done", "trap '' TERM INT; sleep 60"]
)
def test_a_command_that_takes_too_long_is_stopped(box: Sandbox, script: str) -> None:
    box.run_shell("echo kept > /root/file; sleep 100 &")
    began = time.monotonic()
    result = box.run_shell(f"echo begun; {script}", timeout=0.3)
    assert time.monotonic() - began < 5
    assert (result.timed_out, result.returncode, result.output) == (True, None, "begun\n")
    assert box.exec(["bash", "-c", script], timeout=0.3).timed_out
    # Nothing of it goes on, and the box is of use.
    assert box.exec(["pgrep", "-c", "sleep"]).stdout == "0\n"
    assert box.run_shell("cat /root/file").output == "kept\n"


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.003, 0.006, 0.01, 0.02])
def test_a_command_stopped_on_its_way_into_the_box_never_starts(
    box: Sandbox, seconds: float
) -> None:
    """The programs that lead a command into the box outlive the killing of those in it."""
    assert box.exec(["sleep", "60"], timeout=seconds).timed_out
    assert box.run_shell("sleep 60", timeout=seconds).timed_out
    assert box.exec(["pgrep", "-c", "sleep"]).stdout == "0\n"


def test_silence_ends_a_command_and_output_keeps_it(box: Sandbox) -> None:
    talker = "for i in 1 2 3 4 5 6; do sleep 0.15; echo $i; done"
    assert box.run_shell(talker, silence=2).output == "1\n2\n3\n4\n5\n6\n"
    assert box.run_shell("echo a; sleep 30", silence=0.3).timed_out


def test_a_flood_is_stopped_and_fills_no_memory(box: Sandbox) -> None:
    result = box.run_shell("yes", timeout=20)
    assert result.flooded
    assert result.output == "y\n" * (Limits().output // 2)
    both = box.exec(["bash", "-c", "yes >&2"], timeout=20)
    assert both.flooded
    assert len(both.stderr) == Limits().output
    long = box.run_shell("seq 1000000")
    assert (long.returncode, len(long.output)) == (0, Limits().output)
    assert box.run_shell("echo on").output == "on\n"


def test_background_processes_hold_up_nobody(box: Sandbox) -> None:
    began = time.monotonic()
    assert box.exec(["bash", "-c", "sleep 50 & echo done"]).stdout == "done\n"
    assert box.run_shell("sleep 50 & echo $?").output == "0\n"
    assert time.monotonic() - began < 5
    assert box.exec(["pgrep", "-c", "sleep"]).stdout == "2\n"


def test_what_the_background_says_meanwhile_is_heard(box: Sandbox) -> None:
    box.run_shell("(sleep 0.2; echo late) &")
    time.sleep(0.6)
    assert box.run_shell("echo now").output == "late\nnow\n"


def test_a_closed_box_says_so(box: Sandbox) -> None:
    box.close()
    box.close()
    with pytest.raises(SandboxError, match="closed"):
        box.exec(["true"])
    with pytest.raises(SandboxError, match="closed"):
        box.run_shell("true")


def test_many_boxes_at_once_do_not_meet() -> None:
    needs_box()

    def live(number: int) -> str:
        made = engines.open_sandbox()
        try:
            made.run_shell(f"echo {number} > /root/mine")
            return made.run_shell("cat /root/*; ls /root | wc -l").output
        finally:
            made.close()

    # Made in one thread and used in others, by turns, as a collector does.
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(live, range(24))) == [f"{n}\n1\n" for n in range(24)]


def test_a_box_outlives_the_thread_that_made_it() -> None:
    needs_box()
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(engines.open_sandbox).result()
    try:
        assert made.run_shell("echo alive").output == "alive\n"
    finally:
        made.close()


def test_packages_put_aside_can_be_installed(box: Sandbox) -> None:
    assert not box.exec(["sudo", "true"]).success
    done = box.exec(["bash", "-c", "apt-get update && apt-get install -y sudo"], timeout=60)
    assert done.success, done.stderr
    assert box.exec(["sudo", "whoami"]).stdout == "root\n"
    assert not box.exec(["apt-get", "install", "-y", "nginx"], timeout=60).success


def test_the_window_keeps_both_ends() -> None:
    window = Window(keep=4, reach=3)
    for chunk in (b"ab", b"cdef", b"g"):
        window.add(chunk)
    assert (window.text(), window.tail, window.total) == ("abcd", b"efg", 7)


def test_input_larger_than_a_pipe_is_fed() -> None:
    pipe = subprocess.PIPE
    data = b"x" * 1_000_000
    process = subprocess.Popen(["wc", "-c"], stdin=pipe, stdout=pipe, stderr=pipe)
    with process:
        out, _, early = communicate(process, data, 100, 10_000, 10)
    assert (out.text().strip(), early) == ("1000000", "")


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)


def test_the_mirror_is_the_machines_own(tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    release.write_text('ID=x\nVERSION_CODENAME="river"\n')
    with pytest.raises(SandboxError, match="no source of packages for river"):
        rootfs.find_mirror(tmp_path, release)
    write(
        tmp_path, "sources.list.d/other.list", "deb [signed-by=/k] http://a.test/other lake main\n"
    )
    write(
        tmp_path,
        "sources.list.d/new.sources",
        "Types: deb-src\nURIs: http://b.test/x\nSuites: river\nComponents: main\n\n"
        "Types: deb\n# a remark\nURIs: http://c.test/d\nSuites: river river-updates\n"
        "Components: main universe extra\n",
    )
    found = rootfs.find_mirror(tmp_path, release)
    assert found == rootfs.Mirror("http://c.test/d", "river", ("main", "universe"))
    write(
        tmp_path,
        "sources.list",
        "# deb x\ndeb [arch=amd64 trusted=yes] http://e.test/d river main\n",
    )
    assert rootfs.find_mirror(tmp_path, release).address == "http://e.test/d"


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "tools"
    write(
        tools,
        "debootstrap",
        '#!/bin/sh\nmkdir -p "$5"\necho half > "$5/x"\necho no net >&2\nexit 1\n',
    )
    (tools / "debootstrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setattr(rootfs, "PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setattr(rootfs.os, "geteuid", lambda: 0)
    mirror = rootfs.Mirror("http://a.test", "river", ("main",))
    monkeypatch.setattr(rootfs, "find_mirror", lambda: mirror)
    folder = tmp_path / "cache"
    (folder / "rootfs.99").mkdir(parents=True)
    with pytest.raises(SandboxError, match="debootstrap: ended with status 1: no net"):
        rootfs.build(folder, lambda line: None)
    assert not rootfs.ready(folder)
    assert [path.name for path in folder.iterdir()] in ([], ["build.lock"])


def test_a_machine_without_an_engine_gets_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(docker, "engine_answers", lambda: False)
    with pytest.raises(MissingExtraError, match="apt-get install bubblewrap debootstrap"):
        engines.open_sandbox()
    with pytest.raises(MissingExtraError, match="no bwrap"):
        engines.setup(print)


def test_a_machine_without_a_root_file_system_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(rootfs, "box_folder", lambda: tmp_path)
    monkeypatch.setattr(engines, "_no_bubblewrap", lambda: "")
    monkeypatch.setattr(docker, "engine_answers", lambda: False)
    assert "run agenttuning env setup os" in engines.missing()


def test_docker_boxes() -> None:
    if not docker.engine_answers():
        pytest.skip("no Docker engine answers")
    if not docker.image_ready():
        pytest.skip(f"Docker has no image {docker.IMAGE}: build_image was not run")
    made = docker.DockerSandbox(Limits(seconds=20))
    try:
        assert made.exec(["id", "-u"], input="").stdout == "0\n"
        made.run_shell("cd /usr")
        assert made.run_shell("pwd").output == "/usr\n"
        assert made.run_shell("sleep 60", timeout=0.5).timed_out
        made.write_file("/a/b", b"\xff")
        assert made.read_file("/a/b") == b"\xff"
        assert made.exec(["ls", "/sys/class/net"]).stdout == "lo\n"
    finally:
        made.close()
