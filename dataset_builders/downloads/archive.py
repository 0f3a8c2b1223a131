"""Extract members of a zip archive that stay within a folder."""

from __future__ import annotations

import shutil
import stat
import zipfile
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from dataset_builders.errors import DownloadError


def unpack(archive: Path, folder: Path, patterns: Sequence[str]) -> int:
    """Extract the members of a zip archive that match a pattern.

    Extracted into a hidden folder first, whose top entries are then moved, so that a process killed
    here leaves nothing that looks complete. All names are checked, those not extracted included.

    Args:
        archive: The archive.
        folder: Where its members belong.
        patterns: Of names; `*` matches `/` too.

    Returns:
        The number of files.

    Raises:
        DownloadError: It is damaged, a name leads out of the folder or is a link, no name matches,
            or the disk is too small.
    """
    staged = folder / f".{archive.name}.unpacked"
    shutil.rmtree(staged, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as content:
            for each in content.infolist():
                _check_name(archive, each)
            members = [
                each
                for each in content.infolist()
                if not each.is_dir() and any(fnmatchcase(each.filename, p) for p in patterns)
            ]
            if not members:
                raise DownloadError(f"{archive.name}: found no {' or '.join(patterns)} in it")
            _check_disk(archive, folder, sum(each.file_size for each in members))
            for each in members:
                content.extract(each, staged)
    except (zipfile.BadZipFile, EOFError, RuntimeError) as error:  # The last: a password.
        raise DownloadError(f"{archive.name}: cannot be extracted: {error}") from error
    else:
        for top in staged.iterdir():
            _merge(top, folder / top.name)
        return len(members)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _check_name(archive: Path, member: zipfile.ZipInfo) -> None:
    path = PurePosixPath(member.orig_filename.replace("\\", "/"))
    link = stat.S_ISLNK(member.external_attr >> 16)
    if link or path.is_absolute() or ".." in path.parts or ":" in str(path):
        kind = "a link" if link else "a path out of its folder"
        raise DownloadError(
            f"{archive.name}: refused, nothing extracted: {member.orig_filename!r:.80} is {kind}"
        )


def _check_disk(archive: Path, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{archive.name}: {folder} has {free:,} bytes free, {needed:,} are needed"
        )


def _merge(source: Path, target: Path) -> None:
    if not target.exists():
        source.rename(target)
        return
    for path in source.rglob("*"):
        if path.is_file():
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
