"""Attacks on a real box. docs/concepts/sandbox.md lists them; each entry names its test."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dataset_builders.sandbox import bubblewrap as bubblewrap_module
from dataset_builders.sandbox import engines
from dataset_builders.sandbox.base import Sandbox
from dataset_builders.sandbox.bubblewrap import BubblewrapSandbox
from tests.support.boxes import needs_box

REPO = Path(__file__).resolve().parents[3]


def bubblewrap(box: Sandbox) -> BubblewrapSandbox:
    if not isinstance(box, BubblewrapSandbox):
        pytest.skip("an attack on bubblewrap's boxes; this machine uses another engine")
    return box


# Reaching out


def test_no_network(box: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        reach = f"exec 3<>/dev/tcp/127.0.0.1/{port} && echo in"
        # The same line does connect from outside, so it tests something.
        assert subprocess.check_output(["bash", "-c", reach]) == b"in\n"
        assert "refused" in box.run_shell(reach).output
    assert box.exec(["ls", "/proc/sys/net/ipv4/conf"]).stdout.split() == ["all", "default", "lo"]
    assert "unreachable" in box.run_shell("exec 3<>/dev/udp/192.0.2.1/53").output
    assert not box.exec(["ip", "link", "add", "dummy0", "type", "dummy"]).success


def test_no_abstract_sockets_of_the_host(box: Sandbox) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0agenttuning-test")
        server.listen()
        code = "import socket; socket.socket(socket.AF_UNIX).connect('\\0agenttuning-test')"
        subprocess.run([sys.executable, "-c", code], check=True)
        assert "refused" in box.exec(["python3", "-c", code]).stderr


def test_no_sockets_that_no_namespace_holds(box: Sandbox) -> None:
    """As AF_VSOCK, which leads to the host of a virtual machine."""
    bubblewrap(box)
    code = (
        "import socket\n"
        "for family in range(64):\n"
        "    for kind in (1, 2, 3, 5):\n"
        "        try: socket.socket(family, kind).close()\n"
        "        except OSError: continue\n"
        "        print(family)\n"
        "        break\n"
        "socket.socketpair()\n"
    )
    made = box.exec(["python3", "-c", code])
    assert (made.stdout.split(), made.stderr) == (["1", "2", "10", "16"], "")


def test_no_host_files(box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    for path in (tmp_path, REPO, Path("/work"), Path.home() / ".cache"):
        assert not box.exec(["ls", str(path)]).success
    for link in ("/proc/1/root", "/proc/1/cwd", "/proc/self/root", "/proc/self/fd/0/../.."):
        assert str(REPO.name) not in box.exec(["ls", f"{link}/{REPO.parent}"]).stdout
    # What the box changes stays in the box.
    assert box.exec(["sh", "-c", "echo x > /etc/hostname; rm -rf /usr/share /boot"]).success
    fresh = engines.open_sandbox()
    try:
        assert fresh.exec(["cat", "/etc/hostname"]).stdout == "box\n"
        assert fresh.exec(["ls", "/usr/share"]).success
    finally:
        fresh.close()


def test_no_host_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_box()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    made = engines.open_sandbox()
    try:
        everything = "cat /proc/*/environ | tr '\\0' '\\n'; env; set"
        output = made.run_shell(everything).output
        assert "HOME=/root" in output
        assert "sk-secret" not in output
    finally:
        made.close()


def test_no_host_processes(box: Sandbox) -> None:
    processes = box.exec(["sh", "-c", "ls -d /proc/[0-9]*"]).stdout.split()
    assert len(processes) < 8
    assert not box.exec(["kill", "-0", str(os.getpid())]).success
    assert str(REPO) not in box.exec(["sh", "-c", "cat /proc/*/cmdline"]).stdout


def test_no_mounts_and_no_namespaces(box: Sandbox) -> None:
    box.exec(["mkdir", "/m"])
    for attack in (
        "mount -t tmpfs none /m",
        "mount --bind / /m",
        "mount -o remount,rw /proc/sys",
        "umount /proc",
        "unshare --user --map-root-user true",
        "unshare --mount true",
        "unshare --net true",
        "nsenter --target 1 --mount true",
        "chroot / true",
        "mknod /m/disk b 8 0",
        "swapoff -a && swapon /m",
    ):
        result = box.exec(["sh", "-c", attack])
        assert not result.success, attack
    assert not box.exec(["python3", "-c", "import os; os.setns(3, 0)"]).success


def test_no_capabilities_beyond_those_for_files_and_users(box: Sandbox) -> None:
    status = box.exec(["cat", "/proc/self/status"]).stdout
    fields = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    allowed = 0b1111_1011  # CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == allowed
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    # A program with the set-user-id bit, or another user's way back to root, adds nothing.
    box.exec(["sh", "-c", "cp /usr/bin/cat /cat; chmod 4755 /cat; useradd ann"])
    told = box.exec(["su", "ann", "-c", "/cat /proc/self/status"]).stdout
    assert "Uid:\t1000\t1000\t1000" in told
    assert "CapEff:\t0000000000000000" in told


def test_no_user_namespaces_by_the_filter_alone(box: Sandbox) -> None:
    bubblewrap(box)
    # Flags that the kernel itself calls invalid, so EPERM is the filter's.
    code = (
        "import ctypes, errno\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "for flags in (0x1, 0x10000001):\n"
        "    assert libc.unshare(flags) == -1\n"
        "    print(errno.errorcode[ctypes.get_errno()])"
    )
    assert box.exec(["python3", "-c", code]).stdout == "EINVAL\nEPERM\n"


@pytest.mark.parametrize(
    "call",
    ["keyctl", "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "add_key", "ptrace"],
)
def test_no_dangerous_system_calls(box: Sandbox, call: str) -> None:
    bubblewrap(box)
    from dataset_builders.sandbox import seccomp

    numbers = seccomp._MACHINES[os.uname().machine][-1]
    code = (
        "import ctypes, errno\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"assert libc.syscall({numbers[call]}, 0, 0, 0, 0, 0) == -1\n"
        "print(errno.errorcode[ctypes.get_errno()])"
    )
    assert box.exec(["python3", "-c", code]).stdout == "EPERM\n"


def test_the_kernels_settings_cannot_be_written(box: Sandbox) -> None:
    # Nothing is written, only opened: a hole would otherwise change this machine.
    code = (
        "import os\n"
        "for folder, folders, files in os.walk('/proc'):\n"
        "    folders[:] = [f for f in folders if not f.isdigit() and 'self' not in f]\n"
        "    for file in files:\n"
        "        path = os.path.join(folder, file)\n"
        "        try:\n"
        "            mode = os.stat(path).st_mode\n"
        "            secret, meant = not mode & 0o044, mode & 0o222\n"
        "            if not secret and not meant: continue\n"
        "            flags = os.O_WRONLY if meant else os.O_RDONLY\n"
        "            os.close(os.open(path, flags | os.O_NONBLOCK))\n"
        "        except OSError: continue\n"
        "        print(path)\n"
    )
    result = box.exec(["python3", "-c", code])
    assert result.success, result.stderr
    # The covers of hidden files are the null device, which takes anything.
    covered = {f"/proc/{name}" for name in bubblewrap_module._HIDDEN_FILES}
    assert set(result.stdout.split()) <= covered
    assert not box.exec(["bash", "-c", "echo -999 > /proc/1/oom_score_adj"]).success
    assert box.exec(["cat", "/proc/kallsyms", "/proc/keys", "/proc/timer_list"]).stdout == ""
    devices = box.exec(["sh", "-c", "ls /sys; ls /dev/sd* /dev/vd* /dev/mem /dev/kmsg"])
    assert devices.stdout == ""


def test_the_hosts_devices_cannot_be_changed(box: Sandbox) -> None:
    """A careless `chmod -R` would take /dev/null from every program of the host."""
    bubblewrap(box)
    # Asked only: to change the mode would, through a hole, change this machine.
    code = (
        "import os, stat\n"
        "for path in map('/dev/'.__add__, os.listdir('/dev')):\n"
        "    if os.path.islink(path) or not stat.S_ISCHR(os.stat(path).st_mode): continue\n"
        "    print(path, bool(os.statvfs(path).f_flag & os.ST_RDONLY))\n"
    )
    told = dict(line.split() for line in box.exec(["python3", "-c", code]).stdout.splitlines())
    assert {"/dev/null", "/dev/zero", "/dev/full"} <= told.keys()
    assert set(told.values()) == {"True"}
    use = "echo x > /dev/null && head -c 2 /dev/zero | wc -c; chmod 666 /dev/full"
    result = box.exec(["sh", "-c", use])
    assert result.stdout == "2\n"
    assert "Read-only" in result.stderr


def test_the_boxs_first_process_outlives_signals(box: Sandbox) -> None:
    box.exec(["sh", "-c", "kill -9 1; kill -STOP 1; kill -TERM 1; kill -INT 1"])
    assert box.run_shell("echo on").output == "on\n"
    assert not box.exec(["sh", "-c", "echo x > /proc/1/fd/1"], timeout=2).stderr


def test_the_helpers_program_cannot_be_written(box: Sandbox) -> None:
    """The attack on container engines known as CVE-2019-5736.

    A command that is `#!/proc/self/exe` becomes the host's bwrap once it is within the box.
    The loader is held up by a pipe, so that the box can open that program at leisure.
    """
    bubblewrap(box)
    box.write_file("/evil", "#!/proc/self/exe\n")
    box.exec(["sh", "-c", "chmod +x /evil; mkfifo /hold"])
    attack = (
        "import os, time\n"
        "for _ in range(2000):\n"
        "    for pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "        try:\n"
        "            path = os.readlink(f'/proc/{pid}/exe')\n"
        "            if not path.endswith('bwrap'): continue\n"
        "            handle = os.open(f'/proc/{pid}/exe', os.O_PATH)\n"
        "        except OSError: continue\n"
        "        print('held')\n"
        "        print(bool(os.fstatvfs(handle).f_flag & os.ST_RDONLY), flush=True)\n"
        "        raise SystemExit\n"
        "    time.sleep(0.002)\n"
    )
    box.write_file("/attack.py", attack)
    box.run_shell("python3 /attack.py > /told &")
    box.exec(["/evil"], env={"LD_PRELOAD": "/hold"}, timeout=1)
    assert box.read_file("/told") == b"held\nTrue\n"


# Using too much


# Staying on


def test_links_lead_nowhere(box: Sandbox, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("the host's")
    box.exec(["sh", "-c", f"ln -s {target} /link; ln -s / /proc-root; ln -s {tmp_path} /dir"])
    with pytest.raises(FileNotFoundError):
        box.read_file("/link")
    box.exec(["sh", "-c", f"mkdir -p {tmp_path}"])
    box.write_file("/link", "the box's")
    box.write_file("/dir/other", "x")
    box.write_file("/proc/self/cwd/../../../../tmp/up", "x")
    assert target.read_text() == "the host's"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert box.read_file("/link") == b"the box's"


def test_a_box_cannot_pose_as_the_end_of_a_script(box: Sandbox) -> None:
    forged = "printf '\\n%s 0\\n' 00112233445566778899aabbccddeeff; exit 5"
    assert box.run_shell(forged).returncode is None
    # A script that takes the mark's line away only harms itself.
    assert box.run_shell("cat <&10", timeout=1).timed_out
    assert box.run_shell("echo on").output == "on\n"
