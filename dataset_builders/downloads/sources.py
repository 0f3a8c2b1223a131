"""Public sources of environments' data, as listed in `sources.json`.

Each file has its addresses, size, SHA-256 and how they are known. The hosts cannot be reached where
this project is developed, so an entry is `verified` only if its address and content were compared
with an index of public repositories.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dataset_builders.errors import ConfigError

RECORD = "SOURCES.json"
"""File of a data folder with the origins of what was fetched."""

MIRROR_VARIABLE = "AGENTTUNING_MIRROR"
"""Environment variable: base address that replaces `https://` of every source."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to fetch.

    Attributes:
        path: Where it is stored, relative to the environment's data folder.
        urls: Addresses, the first preferred; each serves the same bytes.
        size: In bytes, or None if it is not known.
        sha256: In hexadecimal, or None if it is not known.
        verified: Whether this project compared the address with the content; see the module.
        known_by: How address, size and sum are known.
        optional: Whether it is fetched only on request.
        unpack: For a zip archive: patterns of the members to extract; empty for a plain file.
    """

    path: str
    urls: tuple[str, ...]
    size: int | None
    sha256: str | None
    verified: bool
    known_by: str
    optional: bool = False
    unpack: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HubFiles:
    """Files of a dataset repository on the Hugging Face hub.

    Attributes:
        repo: Its id.
        revision: Commit or branch.
        only: Patterns of its files.
        verified: As for a file.
        known_by: As for a file.
    """

    repo: str
    revision: str
    only: tuple[str, ...]
    verified: bool
    known_by: str


@dataclass(frozen=True, slots=True)
class Source:
    """Public data of an environment.

    Attributes:
        name: The environment, or "agentinstruct".
        what: What the data are.
        licence: Their licence, or that none is stated.
        found_by: Sets of patterns; a folder that matches all of a set has the data.
        files: Files on web servers.
        hub: Files on the hub, or None.
        folder_variable: Environment variable of other software that names the folder, or "".
    """

    name: str
    what: str
    licence: str
    found_by: tuple[tuple[str, ...], ...]
    files: tuple[SourceFile, ...] = ()
    hub: HubFiles | None = None
    folder_variable: str = ""

    def is_in(self, folder: Path) -> bool:
        """Whether a folder has the data."""
        return any(all(holds(folder, each) for each in patterns) for patterns in self.found_by)

    def summary(self) -> str:
        """Describe the data in one line, with the size as far as it is listed."""
        needed = [each for each in self.files if not each.optional]
        known = sum(each.size or 0 for each in needed)
        size = readable(known) if known else "size stated by the host"
        return f"{self.what} ({size}; licence: {self.licence})"


def source_of(name: str) -> Source | None:
    """Return the public data of an environment, or None if none is listed."""
    return _sources().get(name)


def known_sources() -> tuple[str, ...]:
    """Return the names that have public data, sorted."""
    return tuple(sorted(_sources()))


def mirrored(url: str, mirror: str | None) -> str:
    """Return an address at a mirror: its host and path are appended to the mirror's address.

    Args:
        url: Such as `https://example.org/a/b`.
        mirror: Such as `http://proxy:8081/public`; None leaves the address unchanged.

    Raises:
        ConfigError: The mirror is not an http or https address.
    """
    if not mirror:
        return url
    if urlsplit(mirror).scheme not in ("http", "https") or not urlsplit(mirror).netloc:
        raise ConfigError(f"mirror: found {mirror!r}, expected an address such as http://host/path")
    return f"{mirror.rstrip('/')}/{url.partition('://')[2]}"


def mirror_of(given: str | None) -> str | None:
    """Return the given mirror, else that of the environment variable, else None."""
    return given or os.environ.get(MIRROR_VARIABLE) or None


def holds(folder: Path, pattern: str) -> bool:
    """Whether a folder has a file that matches, other than the record of fetched files."""
    return any(path.name != RECORD for path in folder.glob(pattern))


def readable(size: int) -> str:
    """Return a number of bytes in words, such as "4.6 MB"."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


@cache
def _sources() -> Mapping[str, Source]:
    text = (files("dataset_builders.downloads") / "sources.json").read_text("utf-8")
    document = json.loads(text)
    return {
        name: _source(name, entry, document["known_by"])
        for name, entry in document["sources"].items()
    }


def _source(name: str, entry: Mapping[str, Any], reasons: Mapping[str, str]) -> Source:
    hub = entry.get("hub")
    return Source(
        name=name,
        what=entry["what"],
        licence=entry["licence"],
        found_by=tuple(map(tuple, entry["found_by"])),
        files=tuple(_file(each, reasons) for each in entry.get("files", ())),
        hub=HubFiles(**{**hub, "only": tuple(hub["only"])}) if hub else None,
        folder_variable=entry.get("folder_variable", ""),
    )


def _file(entry: Mapping[str, Any], reasons: Mapping[str, str]) -> SourceFile:
    reason = entry["known_by"]
    lists = {key: tuple(entry.get(key, ())) for key in ("urls", "unpack")}
    return SourceFile(**{**entry, **lists, "known_by": reasons.get(reason, reason)})
