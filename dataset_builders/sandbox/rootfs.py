"""Root file system of the bubblewrap sandbox: a small Debian, built once.

`python -m dataset_builders.sandbox.rootfs` builds it, as `agenttuning env setup os` does.
It comes from the mirror that this machine's own package manager uses. An interrupted build leaves
nothing that could be mistaken for a finished one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from dataset_builders.errors import AgentTuningError, StorageError
from dataset_builders.sandbox.base import PATH, SandboxError
from dataset_builders.storage import cache_folder

INSTALLED = (
    "acl", "bc", "bsdextrautils", "bzip2", "ca-certificates", "curl", "file", "gawk", "git",
    "iproute2", "less", "lsof", "net-tools", "procps", "psmisc", "python3", "tree", "unzip",
    "vim-tiny", "wget", "xz-utils", "zip",
)  # fmt: skip
"""Packages in addition to a minimal system: about those of AgentBench's image."""

INSTALLABLE = ("sudo",)
"""Packages that a sandbox can install without network; some tasks do."""

_STAMP = "etc/agenttuning-rootfs"
_PACKAGES = "var/local/packages"
_VERSION = hashlib.sha256(repr((1, INSTALLED, INSTALLABLE)).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Mirror:
    """Source of Debian packages.

    Attributes:
        address: Of the archive.
        suite: Name of the release, such as "bookworm".
        components: Such as ("main",).
    """

    address: str
    suite: str
    components: tuple[str, ...]


def box_folder() -> Path:
    """Return the folder with `rootfs` and `work`, over which sandboxes mount."""
    return cache_folder("os")


def ready(folder: Path) -> bool:
    """Whether the folder has a complete root file system of this version."""
    try:
        return (folder / "rootfs" / _STAMP).read_text() == _VERSION
    except OSError:
        return False


def _entries(folder: Path) -> Iterator[tuple[str, Sequence[str], Sequence[str]]]:
    """Return address, suites and components of every package source, in both its formats."""
    for file in [folder / "sources.list", *sorted(folder.glob("sources.list.d/*.list"))]:
        for line in file.read_text().splitlines() if file.is_file() else ():
            words = line.partition("#")[0].split()
            if words[:1] == ["deb"]:
                start = next((i for i, w in enumerate(words) if w.endswith("]")), 0) + 1
                if len(words) > start + 2:
                    yield words[start], [words[start + 1]], words[start + 2 :]
    for file in sorted(folder.glob("sources.list.d/*.sources")):
        for block in file.read_text().split("\n\n"):
            lines = (line.partition(":") for line in block.splitlines() if line[:1].isalpha())
            fields = {name.lower(): value.split() for name, _, value in lines}
            if "deb" in fields.get("types", []) and fields.get("enabled") != ["no"]:
                for address in fields.get("uris", []):
                    yield address, fields.get("suites", []), fields.get("components", [])


def find_mirror(apt: Path = Path("/etc/apt"), release: Path = Path("/etc/os-release")) -> Mirror:
    """Find this machine's package mirror in its package manager's settings.

    Args:
        apt: Folder of the settings.
        release: File that names the machine's release.

    Raises:
        SandboxError: They name none for the release.
    """
    lines = release.read_text().splitlines() if release.is_file() else []
    named = dict(line.partition("=")[::2] for line in lines)
    suite = named.get("VERSION_CODENAME", "").strip('"')
    for address, suites, components in _entries(apt) if suite else ():
        if suite in suites and "main" in components:
            wanted = tuple(name for name in components if name in ("main", "universe"))
            return Mirror(address, suite, wanted)
    raise SandboxError(f"{apt}: found no source of packages for {suite or 'this system'}")


def build(folder: Path, say: Callable[[str], None]) -> None:
    """Build the root file system, unless the folder already has it.

    Args:
        folder: Target folder.
        say: Called with progress messages.

    Raises:
        SandboxError: A required program is missing or fails, or this process is not root.
        StorageError: The folder cannot be written.
    """
    if ready(folder):
        say(f"{folder / 'rootfs'}: already built")
        return
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        raise SandboxError(
            "building the root file system needs root and debootstrap: "
            "as root, apt-get install bubblewrap debootstrap"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "build.lock"):
            if not ready(folder):
                _build(folder, say)
    except OSError as error:
        if isinstance(error, AgentTuningError):
            raise
        raise StorageError(f"{folder}: {error.strerror or error}") from None


def _build(folder: Path, say: Callable[[str], None]) -> None:
    mirror = find_mirror()
    # Under the lock no other build runs, so existing files are leftovers of a killed one.
    for stale in folder.glob("rootfs.*"):
        shutil.rmtree(stale)
    target = folder / f"rootfs.{os.getpid()}"
    say(f"building {mirror.suite} from {mirror.address}; takes some minutes")
    try:
        _run(
            [
                "debootstrap", "--variant=minbase", f"--include={','.join(INSTALLED)}",
                f"--components={','.join(mirror.components)}", mirror.suite, str(target),
                mirror.address,
            ]
        )  # fmt: skip
        _add_packages(target)
        (target / "etc/hostname").write_text("box\n")
        (target / "etc/hosts").write_text("127.0.0.1 localhost box\n::1 localhost\n")
        (target / "etc/resolv.conf").write_text("")
        (target / _STAMP).write_text(_VERSION)
        old = folder / "rootfs"
        if old.is_symlink() or old.exists():
            old.rename(folder / f"rootfs.old{os.getpid()}")
        target.rename(old)
    finally:
        for left in folder.glob("rootfs.*"):
            left.unlink() if left.is_symlink() else shutil.rmtree(left, ignore_errors=True)
    (folder / "work").mkdir(exist_ok=True)
    say(f"{folder / 'rootfs'}: built")


def _add_packages(target: Path) -> None:
    """Store packages in the tree, with an index, as its only package source."""
    place = target / _PACKAGES
    (place / "partial").mkdir(parents=True)
    inside = ["chroot", str(target)]
    archive = f"-oDir::Cache::archives=/{_PACKAGES}"
    _run([*inside, "apt-get", "-qq", "update"])
    _run([*inside, "apt-get", "-qqy", "--download-only", archive, "install", *INSTALLABLE])
    index = []
    for package in sorted(place.glob("*.deb")):
        control = _run([*inside, "dpkg-deb", "-f", f"/{_PACKAGES}/{package.name}"]).strip()
        digest = hashlib.sha256(package.read_bytes()).hexdigest()
        size = package.stat().st_size
        index.append(f"{control}\nFilename: ./{package.name}\nSize: {size}\nSHA256: {digest}\n")
    (place / "Packages").write_text("\n".join(index))
    for name in ("sources.list", "sources.list.d"):
        found = target / "etc/apt" / name
        shutil.rmtree(found) if found.is_dir() else found.unlink(missing_ok=True)
    source = f"deb [trusted=yes] file:/{_PACKAGES} ./\n"
    (target / "etc/apt/sources.list").write_text(source)
    for name in ("var/cache/apt", "var/lib/apt/lists"):
        for left in (target / name).rglob("*"):
            if left.is_file():
                left.unlink()
    _run([*inside, "apt-get", "-qq", "update"])


def _run(command: Sequence[str]) -> str:
    environment = {**os.environ, "PATH": PATH, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        name = command[0] if command[0] != "chroot" else command[2]
        raise SandboxError(f"{name}: ended with status {done.returncode}: {last}")
    return done.stdout


if __name__ == "__main__":
    try:
        build(box_folder(), print)
    except AgentTuningError as problem:
        sys.exit(f"error: {problem}")
