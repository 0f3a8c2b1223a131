"""`SOURCES.json` of a data folder: where its files come from, and their sums."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dataset_builders.downloads.sources import RECORD
from dataset_builders.errors import DataError
from dataset_builders.storage import replace_text


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a file comes from.

    Attributes:
        url: Its address.
        sha256: Of the file as fetched, in hexadecimal.
        size: In bytes.
        licence: As its source states it.
        listed: Whether the sum was known before the file was fetched; else it was recorded then.
        files: For an archive, the number of extracted files; else 0.
    """

    url: str
    sha256: str
    size: int
    licence: str
    listed: bool
    files: int = 0


class Record:
    """The origins of the fetched files of a folder, by path relative to it.

    Args:
        folder: The folder; the record need not exist.

    Raises:
        DataError: The record is damaged.

    Attributes:
        complete: Whether the last fetch ended with all files.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / RECORD
        self.complete = False
        self._origins: dict[str, Origin] = {}
        if self.exists:
            self._read()

    @property
    def exists(self) -> bool:
        """Whether something was fetched into the folder."""
        return self._path.is_file()

    def get(self, path: str) -> Origin | None:
        """Return the origin of a file, or None if it was not fetched."""
        return self._origins.get(path)

    def add(self, path: str, origin: Origin) -> None:
        """Store the origin of a file, at once and atomically."""
        self._origins[path] = origin
        self.save(complete=False)

    def save(self, *, complete: bool) -> None:
        """Write the record atomically."""
        self.complete = complete
        files = {name: asdict(each) for name, each in sorted(self._origins.items())}
        document = {"complete": complete, "files": files}
        replace_text(self._path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")

    def _read(self) -> None:
        try:
            document: dict[str, Any] = json.loads(self._path.read_text("utf-8"))
            self.complete = document["complete"] is True
            self._origins = {path: Origin(**each) for path, each in document["files"].items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(
                f"{self._path}: found {type(error).__name__}: {error}, expected the record of "
                "fetched files; remove it to record them anew"
            ) from error
