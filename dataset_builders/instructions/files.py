"""Atomic writes and validated reads of this package's files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dataset_builders.errors import DataError, SourceNotFoundError
from dataset_builders.storage import replace_text


def write_text(path: Path, text: str) -> None:
    """Write a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, text)


def write_json(path: Path, value: Any) -> None:
    """Write one JSON value."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def write_lines(path: Path, values: Iterable[Any]) -> None:
    """Write one JSON value per line."""
    write_text(path, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))


def read_list(path: Path, field: str) -> list[dict[str, Any]]:
    """Read a JSON list of objects.

    Args:
        path: The file.
        field: A field that each object must have, as text.

    Raises:
        SourceNotFoundError: There is no such file.
        DataError: It is not such a list; names the record.
    """
    try:
        value = json.loads(read_text(path))
    except ValueError as error:
        raise DataError(f"{path}: expected a JSON list of tasks: {error}") from error
    if not isinstance(value, list):
        raise DataError(f"{path}: found {type(value).__name__}, expected a list of tasks")
    for number, record in enumerate(value):
        _check(f"{path}: record {number}", record, field)
    return value


def read_lines(path: Path, field: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read JSON objects, one per line, each with its location such as "pairs.jsonl:3".

    Raises:
        SourceNotFoundError: There is no such file.
        DataError: A line is not such an object; names the line.
    """
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}: expected a JSON object: {error}") from error
        _check(where, record, field)
        yield where, record


def read_text(path: Path) -> str:
    """Read a UTF-8 file.

    Raises:
        SourceNotFoundError: It is missing, or cannot be read.
        DataError: It is not UTF-8.
    """
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8: {error}") from error
    except OSError as error:
        raise SourceNotFoundError(f"{path}: cannot be read: {error.strerror}") from error


def _check(where: str, record: Any, field: str) -> None:
    if not isinstance(record, dict):
        raise DataError(f"{where}: found {type(record).__name__}, expected an object")
    if not isinstance(record.get(field), str) or not record[field].strip():
        raise DataError(f"{where}: {field}: found {record.get(field)!r}, expected text")
