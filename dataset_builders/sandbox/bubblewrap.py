"""Bubblewrap sandbox: namespaces, an in-memory overlay, control groups. Needs root.

A private mount namespace holds the overlay: the root file system below, read-only, and a
tmpfs of limited size above. In it bubblewrap starts the box's first process, which only
waits: for the end of its input, when it ends and takes the box with it, even if this
process was killed. Every command is a bubblewrap of its own over the same overlay, in the
first process's other namespaces, so that pipes and status are the command's own, without a process
of the box in between.

Of the host, the mounts that hold the helpers' programs and the devices of /dev are read-only
for a box: it can neither write to a helper's program through /proc/PID/exe nor change the
mode or owner of the host's /dev/null, which its own is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from dataset_builders.sandbox.base import CAPABILITIES, ENVIRONMENT, Limits, SandboxError
from dataset_builders.sandbox.cgroups import ControlGroup
from dataset_builders.sandbox.engine import EngineSandbox
from dataset_builders.sandbox.seccomp import filter_program

_NAMESPACES = ("pid", "net", "ipc", "uts", "cgroup")

# Joins the groups of "$1" before anything else, so that all that follows is counted. A process that
# cannot join would run without limits, so it is not started.
_JOIN = 'for group in $1; do echo 0 > "$group/cgroup.procs" || exit 125; done; shift; '
_MOUNT = (
    'set -e; cd "$1"; '
    'mount -t tmpfs -o "size=$2,nr_inodes=$3,mode=755" agenttuning work; '
    "mkdir work/upper work/work work/root; "
    "mount -t overlay -o lowerdir=rootfs,upperdir=work/upper,workdir=work/work agenttuning "
    "work/root; "
    'for place in $4; do mount -o remount,bind,ro "$place"; done; '
    'shift 4; exec "$@"'
)
# When memory runs out, a command is killed, not the first process.
_EXPENDABLE = "echo 500 > /proc/self/oom_score_adj; "
_WAIT = "echo; while read -r line; do :; done"

# Global kernel state, which no namespace hides. Bubblewrap makes bus and irq
# read-only itself, but leaves /proc/sys out: root may not write to the folder, only to its
# files, and through kernel.core_pattern a box would run programs on the host.
_READ_ONLY = ("pressure", "sys", "sysrq-trigger")
_HIDDEN_FILES = (
    "kallsyms", "kcore", "keys", "key-users", "kpagecgroup", "kpagecount", "kpageflags",
    "latency_stats", "pagetypeinfo", "slabinfo", "timer_list", "vmallocinfo",
)  # fmt: skip
_HIDDEN_FOLDERS = ("acpi", "asound", "fs", "scsi")


# The host's own, which bubblewrap shows a box. To the kernel the box's root owns them.
_DEVICES = tuple(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty"))


def _shared_mounts() -> list[str]:
    """Return the host's mounts of the devices and of the helper programs."""
    programs = [shutil.which(name) or "" for name in ("bwrap", "nsenter", "sh")]
    shared = [*_DEVICES, *(os.path.realpath(name) for name in programs)]
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    places = dict.fromkeys(line.split()[4] for line in lines)
    return [place for place in places if any(Path(name).is_relative_to(place) for name in shared)]


def _hidden() -> list[str]:
    arguments = []
    for name in _READ_ONLY:
        arguments += ["--ro-bind-try", f"/proc/{name}", f"/proc/{name}"]
    for name in _HIDDEN_FILES:
        if Path("/proc", name).exists():
            arguments += ["--ro-bind", "/dev/null", f"/proc/{name}"]
    for name in _HIDDEN_FOLDERS:
        if Path("/proc", name).is_dir():
            arguments += ["--tmpfs", f"/proc/{name}", "--remount-ro", f"/proc/{name}"]
    return arguments


class BubblewrapSandbox(EngineSandbox):
    """A sandbox run by bubblewrap.

    Args:
        folder: Holds `rootfs`, the root file system, and an empty folder `work`.
        limits: What the box may use.

    Raises:
        SandboxError: The box cannot be made; the message is the failing program's.
    """

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        super().__init__(limits or Limits())
        self._folder = folder
        self._filter = filter_program()
        self._hidden = _hidden()
        self._handles: dict[str, int] = {}
        self._holder: subprocess.Popen[bytes] | None = None
        self._first = 0
        self._group = ControlGroup(self.limits)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        info, info_end = os.pipe()
        mounts = [str(self._folder), str(self.limits.disk), str(self.limits.files)]
        mounts.append(" ".join(_shared_mounts()))
        options = [*(f"--unshare-{name}" for name in _NAMESPACES), "--hostname", "box"]
        options += ["--as-pid-1", "--info-fd", str(info_end)]
        inner = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _MOUNT, "sh"]
        waiting = ["/bin/bash", "--norc", "--noprofile", "-c", _WAIT]
        # Bubblewrap gets both ends: were there nobody to read it, as when this process is killed
        # now, it would end before it lets the first process continue, which would wait for ever.
        both = (info, info_end)
        try:
            self._holder = self._popen(
                'exec "$@"', [*inner, *mounts], options, waiting, {}, "/", both, merged=False
            )
        except BaseException:
            os.close(info)
            raise
        finally:
            os.close(info_end)
        with os.fdopen(info) as stream:
            reported = stream.read()
        self._processes.add(self._holder)
        assert self._holder.stdout
        assert self._holder.stderr
        if not reported or self._holder.stdout.readline() != b"\n":
            raise SandboxError(f"bwrap: {self._holder.stderr.read().decode().strip()}")
        self._first = json.loads(reported)["child-pid"]
        places = {name: f"/proc/{self._first}/ns/{name}" for name in _NAMESPACES}
        places["mount"] = f"/proc/{self._holder.pid}/ns/mnt"
        for name, place in places.items():
            self._handles[name] = os.open(place, os.O_RDONLY | os.O_CLOEXEC)

    def _spawn(
        self, cmd: Sequence[str], cwd: str, env: Mapping[str, str], *, merged: bool
    ) -> subprocess.Popen[bytes]:
        # Opened through this process, so that the box inherits none of them. Bubblewrap has to
        # join the processes' namespace itself, else it shows the host's processes in /proc.
        own, handles = f"/proc/{os.getpid()}/fd", dict(self._handles)
        pids = handles.pop("pid")
        enter = ["nsenter", *(f"--{name}={own}/{fd}" for name, fd in handles.items()), "--"]
        script = _EXPENDABLE + 'exec "$@"'
        options = ["--pidns", str(pids)]
        return self._popen(script, enter, options, cmd, env, cwd, (pids,), merged)

    def _popen(
        self,
        script: str,
        before: Sequence[str],
        options: Sequence[str],
        cmd: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        descriptors: tuple[int, ...],
        merged: bool,
    ) -> subprocess.Popen[bytes]:
        """Start a command in the box, through the helper programs that enter it."""
        if any("\0" in part for part in (*cmd, *env, *env.values(), cwd)):
            raise SandboxError("a command cannot hold the character NUL")
        rules, rules_end = os.pipe()
        try:
            os.write(rules_end, self._filter)
            os.close(rules_end)
            return subprocess.Popen(
                [
                    "sh", "-c", _JOIN + script, "sh", " ".join(map(str, self._group.folders)),
                    *before, "bwrap", *self._view(cwd, env), *options, "--seccomp", str(rules),
                    "--", *cmd,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if merged else subprocess.PIPE,
                pass_fds=(*descriptors, rules),
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath)},
                start_new_session=True,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            raise SandboxError(f"the box's command does not start: {error}") from None
        finally:
            os.close(rules)

    def _view(self, cwd: str, env: Mapping[str, str]) -> list[str]:
        arguments = ["--bind", f"{self._folder}/work/root", "/", "--proc", "/proc"]
        arguments += [*self._hidden, "--dev", "/dev", "--new-session", "--clearenv"]
        for name, value in {**ENVIRONMENT, **env}.items():
            arguments += ["--setenv", name, value]
        arguments += ["--chdir", cwd, "--cap-drop", "ALL"]
        for capability in CAPABILITIES:
            arguments += ["--cap-add", capability]
        return arguments

    def _stop(self) -> None:
        self._group.kill(spared={self._first, *self._monitors})

    @property
    def _alive(self) -> bool:
        return self._holder is not None and self._holder.poll() is None

    def _end(self) -> None:
        while self._handles:
            os.close(self._handles.popitem()[1])
        # When the first process ends, the kernel kills all others of its namespace.
        self._group.kill(spared=self._monitors)
        self._reap_all()
        self._group.remove()
