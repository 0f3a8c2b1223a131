"""Control groups: memory and process limits of a sandbox, and its list of processes.

Both versions are supported: version 1 has a hierarchy per controller, version 2 one for all. A
group's name identifies the process that created it, so that the next start can remove the leftovers
of a killed process.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import signal
import time
from collections.abc import Collection
from pathlib import Path

from dataset_builders.sandbox.base import Limits, SandboxError

_NAME = re.compile(r"agenttuning-((\d+)-(\d+)-\d+)-\d+")
_numbers = itertools.count()


def owner_name(pid: int) -> str:
    """Return namespace, process id and start time, a combination that is never reused."""
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return f"{namespace}-{pid}-0"
    return f"{namespace}-{pid}-{stat.rpartition(')')[2].split()[19]}"


def _own_path(controller: str) -> str:
    """Return the path of this process's group, within which outer limits still apply."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return path
    return "/"


@functools.cache
def parents() -> tuple[Path, ...]:
    """Return the folders in which groups can be created: one with version 2, two with version 1.

    Raises:
        SandboxError: There are none, or this process cannot write to them.
    """
    mounts: dict[str, Path] = {}
    unified = None
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        folder = Path(fields.split()[4])
        if kind == "cgroup2":
            unified = folder
        elif kind == "cgroup":
            for name in {"memory", "pids"} & set(options.split(",")):
                own = folder / _own_path(name).lstrip("/")
                mounts[name] = own if own.is_dir() else folder
    if mounts.keys() == {"memory", "pids"}:
        found = tuple(mounts.values())
    elif unified is not None:
        found = (_unified_parent(unified),)
    else:
        raise SandboxError("no control groups for memory and processes are mounted here")
    for folder in found:
        if not os.access(folder, os.W_OK):
            raise SandboxError(f"{folder}: cannot make a control group there; run as root")
        _sweep(folder)
    return found


def _unified_parent(root: Path) -> Path:
    """Return a group without processes of its own, which version 2 requires of a parent."""
    folder = root / "agenttuning"
    try:
        folder.mkdir(exist_ok=True)
        for place in (root, folder):
            (place / "cgroup.subtree_control").write_text("+memory +pids")
    except OSError as error:
        raise SandboxError(
            f"{root}: memory and process limits cannot be set: {error.strerror}"
        ) from None
    return folder


def _sweep(folder: Path) -> None:
    # Only in this namespace: elsewhere the same pid is another process.
    namespace = owner_name(os.getpid()).partition("-")[0]
    for group in folder.glob(f"agenttuning-{namespace}-*"):
        found = _NAME.fullmatch(group.name)
        if found and owner_name(int(found[3])) != found[1]:
            with contextlib.suppress(SandboxError):
                ControlGroup.remove_folders((group,), 1.0)


def _processes(folder: Path) -> set[int]:
    try:
        found = {int(pid) for pid in (folder / "cgroup.procs").read_text().split()}
    except OSError:
        return set()
    # 0 stands for a process outside our namespace; to `kill` it means our own group.
    return found - {0}


def _write(file: Path, value: int) -> None:
    try:
        file.write_text(str(value))
    except OSError as error:
        raise SandboxError(f"{file}: {error.strerror}") from None


class ControlGroup:
    """The control group of one sandbox.

    Args:
        limits: Its limits.

    Raises:
        SandboxError: It cannot be created.
    """

    def __init__(self, limits: Limits) -> None:
        name = f"agenttuning-{owner_name(os.getpid())}-{next(_numbers)}"
        self.folders = tuple(parent / name for parent in parents())
        self._processes = limits.processes
        try:
            for folder in self.folders:
                folder.mkdir()
            self._limit_memory(limits.memory)
            self.allow_forks()
        except OSError as error:
            raise SandboxError(f"control group {name}: {error.strerror}") from None

    def _limit_memory(self, limit: int) -> None:
        for folder in self.folders:
            # Order matters: the limit with swap must not be below the one without.
            for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max"):
                if (folder / name).exists():
                    _write(folder / name, limit)
            if (folder / "memory.swap.max").exists():
                _write(folder / "memory.swap.max", 0)

    def _limit_processes(self, limit: int) -> None:
        for folder in self.folders:
            if (folder / "pids.max").exists():
                _write(folder / "pids.max", limit)

    def allow_forks(self) -> None:
        """Let processes start, up to the limit."""
        self._limit_processes(self._processes)

    def pids(self) -> set[int]:
        """Return the group's processes, by their pid in this process's namespace."""
        return _processes(self.folders[0])

    def kill(self, spared: Collection[int] = ()) -> None:
        """Kill all processes except those spared; none can start meanwhile.

        Raises:
            SandboxError: They do not end.
        """
        self._limit_processes(1)
        deadline = time.monotonic() + 10
        while left := self.pids().difference(spared):
            for pid in left:
                self._kill(pid)
            if time.monotonic() > deadline:
                raise SandboxError(f"{self.folders[0]}: {len(left)} processes do not end")
            time.sleep(0.001)
        self.allow_forks()

    def _kill(self, pid: int) -> None:
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(pid)
            try:
                # The pid may have been reused since the list was read.
                if pid in self.pids():
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            finally:
                os.close(descriptor)

    def remove(self) -> None:
        """Kill the group's processes and remove it.

        Raises:
            SandboxError: They do not end.
        """
        self.remove_folders(self.folders, 10.0)

    @staticmethod
    def remove_folders(folders: Collection[Path], seconds: float) -> None:
        """Kill the processes of groups and remove the groups' folders."""
        deadline = time.monotonic() + seconds
        for folder in folders:
            while folder.exists():
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    break
                for pid in _processes(folder):
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
                if time.monotonic() > deadline:
                    raise SandboxError(f"{folder}: the box's processes do not end")
                time.sleep(0.001)
