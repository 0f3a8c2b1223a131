"""Load a general benchmark's questions from a folder or the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dataset_builders.environments.data import find_data
from dataset_builders.errors import DataError, SourceNotFoundError

if TYPE_CHECKING:
    from evaluators.tasks.registry import SuiteSettings

_T = TypeVar("_T")

Row = dict[str, Any]


def benchmark_folder(
    name: str,
    settings: SuiteSettings,
    names: Sequence[str],
    needs: Sequence[str],
    what: str,
) -> Path:
    """Find the folder of a benchmark's data; see `find_data`.

    Searched in order: the option `data`, the setting `data` (a folder of such folders),
    `$AGENTTUNING_DATA`, the cache.

    Raises:
        SourceNotFoundError: There is none; the message states what to put where.
    """
    given: str | Path | None = settings.options.get(name, {}).get("data")
    if given is None and settings.data is not None:
        inner = [Path(settings.data) / each for each in dict.fromkeys((*names, name))]
        given = next((place for place in inner if place.is_dir()), inner[0])
    return find_data(name, given, names, needs, what)


def hub_rows(dataset: str, config: str, split: str) -> list[Row]:
    """Return the rows of a hub dataset, from its cache if possible.

    Raises:
        SourceNotFoundError: It cannot be loaded, or `datasets` is not installed.
    """
    try:
        from datasets import load_dataset

        return [dict(row) for row in load_dataset(dataset, config, split=split)]
    except Exception as error:  # Without a network the hub's client raises many types of errors.
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SourceNotFoundError(
            f"{dataset} cannot be loaded from the hub (is there a network?): {said}"
        ) from error


def folder_or_hub(
    name: str,
    settings: SuiteSettings,
    find: Callable[[], Path],
    read: Callable[[Path], _T],
    hub: Callable[[], _T],
) -> tuple[_T, str]:
    """Read a folder if there is one, else the hub; a folder given explicitly must exist.

    Returns:
        The data, and "folder" or "hub".

    Raises:
        SourceNotFoundError: Neither is available; one line that names both.
    """
    try:
        folder = find()
    except SourceNotFoundError as absent:
        if settings.options.get(name, {}).get("data") is not None:
            raise
        try:
            return hub(), "hub"
        except SourceNotFoundError as error:
            raise SourceNotFoundError(f"{absent}; and {error}") from None
    return read(folder), "folder"


def read_rows(file: Path, fields: Mapping[str, type | tuple[type, ...]]) -> list[Row]:
    """Read the rows of a JSON Lines (also .gz) or Parquet file.

    Args:
        file: The file.
        fields: Required fields of every row, with their types.

    Raises:
        DataError: A row is not a JSON object, or lacks a field; file, row and field are named.
    """
    try:
        rows = list(_parquet(file) if file.suffix == ".parquet" else _json_lines(file))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from error
    if not rows:
        raise DataError(f"{file}: found no row, expected at least one")
    for number, row in enumerate(rows, 1):
        check_row(f"{file}:{number}", row, fields)
    return rows


def check_row(place: str, row: Any, fields: Mapping[str, type | tuple[type, ...]]) -> None:
    """Reject a row that lacks a field.

    Raises:
        DataError: A field is missing or has another type.
    """
    if not isinstance(row, dict):
        raise DataError(f"{place}: found {type(row).__name__}, expected an object")
    for field, kind in fields.items():
        if not isinstance(row.get(field), kind):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            wanted = " or ".join(each.__name__ for each in kinds)
            found = type(row[field]).__name__ if field in row else "nothing"
            raise DataError(f"{place}: {field}: found {found}, expected {wanted}")


def _parquet(file: Path) -> Iterator[Any]:
    import pyarrow
    from pyarrow import parquet

    try:
        yield from parquet.read_table(file).to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"{file}: not a Parquet file: {error}") from error


def _json_lines(file: Path) -> Iterator[Any]:
    import gzip

    with (
        gzip.open(file, "rt", encoding="utf-8")
        if file.suffix == ".gz"
        else file.open(encoding="utf-8")
    ) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{file}:{number}: not JSON: {error}") from error


def digest(rows: Iterable[Any]) -> str:
    """Return a short SHA-256 of rows, to identify a copy of the data."""
    sha = hashlib.sha256()
    for row in rows:
        sha.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
    return sha.hexdigest()[:12]
