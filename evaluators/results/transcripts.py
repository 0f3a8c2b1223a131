"""Transcript journal: finished items on disk, from which an evaluation can be resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from dataset_builders.errors import ConfigError, DataError
from dataset_builders.storage import complete_lines


class Journal:
    """A JSON Lines file of finished records, each with its transcript.

    The first line states what was measured and how. A partial last line, of a killed process, is
    removed. Records with an error are unfinished: they are measured again.

    Args:
        path: The file; created with its folder by the first record.
        heading: What was measured and how, JSON-ready.

    Raises:
        ConfigError: The file belongs to another model or other settings.
        DataError: A line before the last one is damaged.
    """

    def __init__(self, path: Path, heading: Mapping[str, Any]) -> None:
        self.path = path
        self._heading = json.loads(json.dumps(heading))
        self._file: IO[str] | None = None
        self.finished: dict[str, dict[str, Any]] = {}
        if path.exists():
            self._read()

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a record; it survives the end of this process."""
        self._open().write(json.dumps(record, ensure_ascii=False) + "\n")
        self._open().flush()

    def close(self) -> None:
        """Close the file; may be called more than once."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def _open(self) -> IO[str]:
        if self._file is None:
            new = not self.path.exists()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8", errors="surrogatepass")
            if new:
                self._file.write(json.dumps(self._heading, ensure_ascii=False) + "\n")
        return self._file

    def _read(self) -> None:
        lines = complete_lines(self.path)
        if not lines:
            self.path.unlink()
            return
        os.truncate(self.path, sum(len(line) + 1 for line in lines))
        rows = [read_record(self.path, number, line) for number, line in enumerate(lines, 1)]
        if rows[0] != self._heading:
            differs = sorted(
                key
                for key in rows[0].keys() | self._heading.keys()
                if rows[0].get(key) != self._heading.get(key)
            )
            raise ConfigError(
                f"{self.path}: holds another evaluation ({', '.join(differs)} differ): name "
                "another folder (`out`), or delete this file"
            )
        self.finished = {row["item"]: row for row in rows[1:] if not row.get("error")}


def read_transcript(path: Path) -> list[dict[str, Any]]:
    """Return the last record of every item: a failed one may have been measured again.

    Raises:
        DataError: A line is damaged.
    """
    lines = complete_lines(path)[1:]  # without the heading
    rows = (read_record(path, number, line) for number, line in enumerate(lines, 2))
    return list({row["item"]: row for row in rows}.values())


def read_record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """Parse a line of a transcript; the first one is the heading, which has no item.

    Raises:
        DataError: It is damaged.
    """
    try:
        row = json.loads(line.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}:{number}: not a transcript: {error}") from error
    if not isinstance(row, dict) or (number > 1 and "item" not in row):
        raise DataError(f"{path}:{number}: not a transcript: found no item, expected a record")
    return row
