"""Choose the sandbox engine available on this machine; never the bare host."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

from dataset_builders.errors import MissingExtraError
from dataset_builders.sandbox import docker, rootfs
from dataset_builders.sandbox.base import Limits, Sandbox, SandboxError
from dataset_builders.sandbox.bubblewrap import BubblewrapSandbox
from dataset_builders.sandbox.cgroups import parents
from dataset_builders.sandbox.seccomp import filter_program

_PROGRAMS = ("bwrap", "nsenter", "unshare", "mount")


def _no_bubblewrap() -> str:
    """Return why bubblewrap cannot be used here, or ""."""
    absent = [name for name in _PROGRAMS if not shutil.which(name)]
    if absent:
        return f"no {', '.join(absent)}"
    if os.geteuid() != 0:
        return "bubblewrap sandboxes need root"
    if not filter_program():
        return f"no system call filter is available for {os.uname().machine}"
    try:
        parents()
    except SandboxError as error:
        return str(error)
    return ""


def missing() -> str:
    """Return why no sandbox can be created here, with the remedy, in one line; "" if one can."""
    reason = _no_bubblewrap()
    if not reason and rootfs.ready(rootfs.box_folder()):
        return ""
    if docker.engine_answers() and docker.image_ready():
        return ""
    if not reason:
        place = rootfs.box_folder() / "rootfs"
        return f"sandbox: no root file system in {place}: run agenttuning env setup os"
    if docker.engine_answers():
        return "sandbox: Docker has no image for it: run agenttuning env setup os"
    return _no_engine(reason)


def _no_engine(reason: str) -> str:
    install = "; as root: apt-get install bubblewrap debootstrap" * reason.startswith("no ")
    return f"sandbox: {reason}, and no Docker engine answers{install}"


def setup(say: Callable[[str], None]) -> None:
    """Install what sandboxes need: a root file system, or Docker's image.

    Raises:
        MissingExtraError: Neither engine can be used here.
        SandboxError: A program fails.
        StorageError: The cache cannot be written.
    """
    reason = _no_bubblewrap()
    if not reason:
        rootfs.build(rootfs.box_folder(), say)
    elif docker.engine_answers():
        docker.build_image(say)
    else:
        raise MissingExtraError(_no_engine(reason))


def open_sandbox(limits: Limits | None = None) -> Sandbox:
    """Create a sandbox: bubblewrap's if it can be used, else Docker's.

    Raises:
        MissingExtraError: Neither can be used; the message is `missing`'s.
        SandboxError: The sandbox cannot be created.
    """
    if reason := missing():
        raise MissingExtraError(reason)
    folder = rootfs.box_folder()
    if rootfs.ready(folder) and not _no_bubblewrap():
        return BubblewrapSandbox(folder, limits)
    return docker.DockerSandbox(limits)
