"""Fetch the public data of an environment into a folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from dataset_builders.downloads.archive import unpack
from dataset_builders.downloads.fetch import (
    Patience,
    Progress,
    Wanted,
    fetch,
    remote_size,
    sha256_of,
)
from dataset_builders.downloads.hub import hub_files, hub_headers
from dataset_builders.downloads.record import Origin, Record
from dataset_builders.downloads.sources import RECORD, Source, SourceFile, mirrored, readable
from dataset_builders.errors import DownloadError, StorageError

Say = Callable[[str], None]

_COMMIT = re.compile(r"/(?:resolve/)?[0-9a-f]{40}/")


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be fetched, and where to.

    Attributes:
        source: The public data.
        folder: Where they are stored.
        files: Files that are not there yet.
        headers: Request headers.
        present: Number of files that are there.
    """

    source: Source
    folder: Path
    files: tuple[SourceFile, ...]
    headers: dict[str, str]
    present: int

    @property
    def size(self) -> int:
        """Bytes to fetch, as far as known."""
        return sum(each.size or 0 for each in self.files)

    def lines(self) -> list[str]:
        """Describe size, licence and addresses, a line each."""
        name, unknown = self.source.name, sum(each.size is None for each in self.files)
        size = readable(self.size) if unknown < len(self.files) else "of unknown size"
        more = f" and {unknown} of unknown size" if 0 < unknown < len(self.files) else ""
        files = f"{len(self.files)} file{'s' * (len(self.files) != 1)}"
        found = [f"{name}: {self.source.what}: {files}, {size}{more}, to {self.folder}"]
        found.append(f"{name}: licence: {self.source.licence}")
        for place, verified in sorted({(_place(each), each.verified) for each in self.files}):
            note = "" if verified else " (address not verified by this project)"
            found.append(f"{name}: from {place}{note}")
        return found


def make_plan(
    source: Source, folder: Path, *, optional: bool = False, mirror: str | None = None
) -> Plan:
    """Determine which files of a source a folder lacks, and their sizes.

    Args:
        source: The public data.
        folder: The data folder; need not exist.
        optional: Whether optional files are wanted too.
        mirror: See `sources.mirrored`.

    Raises:
        ConfigError: The mirror is not an address.
        DownloadError: The hub, whose listing has the sizes, cannot be reached.
        DataError: The folder's record is damaged.
    """
    record, headers = Record(folder), {}
    wanted = [each for each in source.files if optional or not each.optional]
    if source.hub is not None:
        headers = hub_headers()
        endpoint = mirrored("https://huggingface.co", mirror) if mirror else None
        wanted += [
            SourceFile(path, (url,), size, sha256, source.hub.verified, source.hub.known_by)
            for path, url, size, sha256 in hub_files(source.hub, endpoint)
        ]
    else:
        wanted = [
            replace(each, urls=tuple(mirrored(url, mirror) for url in each.urls)) for each in wanted
        ]
    lacking = [each for each in wanted if not _is_there(folder, each, record)]
    return Plan(source, folder, tuple(map(_sized, lacking)), headers, len(wanted) - len(lacking))


def carry_out(
    plan: Plan, say: Say, progress: Progress | None = None, patience: Patience | None = None
) -> None:
    """Fetch the files of a plan; what an earlier run fetched stays.

    Args:
        plan: The plan.
        say: Called with a line for each file.
        progress: Called with the number of bytes that arrived.
        patience: When to give up; see `fetch.Patience`.

    Raises:
        DownloadError: A file cannot be fetched, or is not the listed one; one line.
        StorageError: The folder cannot be written.
    """
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(plan.folder / ".setup.lock", timeout=0):
            record = Record(plan.folder)
            record.save(complete=False)
            for each in plan.files:
                _fetch_one(plan, each, record, say, progress, patience)
            record.save(complete=True)
    except Timeout:
        raise DownloadError(
            f"{plan.source.name}: another process is fetching to {plan.folder}"
        ) from None
    except OSError as error:
        if isinstance(error, DownloadError):
            raise
        raise StorageError(
            f"{plan.folder}: cannot be written: {error.strerror or error}"
        ) from error


def is_unfinished(source: Source, folder: Path) -> bool:
    """Whether an earlier fetch into a folder was stopped, or a file of it was removed since."""
    record = Record(folder)
    needed = [each for each in source.files if not each.optional]
    return record.exists and (
        not record.complete or not all(_is_there(folder, each, record) for each in needed)
    )


def check_files(source: Source, folder: Path, say: Say) -> None:
    """Compare fetched files with their recorded or listed sums, and report differences.

    A different file is kept: the user may have edited it, or put another version there.
    """
    record = Record(folder)
    for each in source.files:
        origin, path = record.get(each.path), folder / each.path
        expected = origin.sha256 if origin else each.sha256
        if each.unpack or expected is None or not path.is_file():
            continue
        if sha256_of(path) != expected:
            whose = RECORD if origin else "the listed one"
            say(f"{source.name}: {path}: SHA-256 differs from {whose}; the file is kept")


def _fetch_one(
    plan: Plan,
    file: SourceFile,
    record: Record,
    say: Say,
    progress: Progress | None,
    patience: Patience | None,
) -> None:
    origin, target = record.get(file.path), plan.folder / file.path
    expected = file.sha256 or (origin.sha256 if origin else None)
    wanted = Wanted(target, file.urls, file.size, expected, plan.headers)
    try:
        url, digest = fetch(wanted, progress, patience)
        size = target.stat().st_size
        number = unpack(target, plan.folder, file.unpack) if file.unpack else 0
    except DownloadError as error:
        raise DownloadError(f"{plan.source.name}: {error}") from error
    listed = file.sha256 is not None or bool(origin and origin.listed)
    record.add(file.path, Origin(url, digest, size, plan.source.licence, listed, number))
    if file.unpack:
        target.unlink()
    if expected:
        outcome = "SHA-256 as " + ("listed" if file.sha256 else f"recorded in {RECORD}")
    else:
        outcome = f"no checksum is known; SHA-256 {digest} recorded now in {RECORD}"
    extracted = f", {number:,} files extracted" if number else ""
    say(f"{plan.source.name}: {file.path}: {readable(size)}, {outcome}{extracted}")


def _is_there(folder: Path, file: SourceFile, record: Record) -> bool:
    if not file.unpack:
        return (folder / file.path).is_file()
    origin = record.get(file.path)
    return bool(origin and origin.files) and _has_any(folder, file.unpack)


def _has_any(folder: Path, patterns: Sequence[str]) -> bool:
    return any((folder / PurePosixPath(pattern).parts[0]).exists() for pattern in patterns)


def _sized(file: SourceFile) -> SourceFile:
    if file.size is not None:
        return file
    try:
        size = remote_size(file.urls[0])
    except DownloadError:  # Reported when the file is fetched.
        return file
    return replace(file, size=size or None)


def _place(file: SourceFile) -> str:
    """Return the address up to a commit, or without the file, for one line per place."""
    url = file.urls[0]
    if _COMMIT.search(url):
        return _COMMIT.split(url)[0]
    return url if file.unpack else url.partition("?")[0].rpartition("/")[0]
