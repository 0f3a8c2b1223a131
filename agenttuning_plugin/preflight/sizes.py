"""Number of records of a source, without reading all of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from dataset_builders.readers.compression import open_binary
from dataset_builders.readers.records import layout_of, read_records, suffix_of
from dataset_builders.sources.loading import ResolvedSource

_COUNTED_BYTES = 2**28
"""Files of lines up to this size are read to count their lines."""

_SMALL_COMPRESSED = 2**26
_MEASURED = 256
"""Records from whose mean length the number of records of an uncounted file is estimated."""


class Size(NamedTuple):
    """Size of a source.

    Attributes:
        records: Number of records, or none if it can only be found by reading everything.
        exact: Whether it was counted, not estimated from the bytes of the first records.
        bytes: Bytes of its files.
    """

    records: int | None
    exact: bool
    bytes: int


def size_of(source: ResolvedSource) -> Size:
    """Count the records of a source, or estimate them from the bytes of its files.

    Counted: Parquet and Arrow by their metadata, JSON lines up to 256 MiB by their lines.
    Estimated: JSON arrays and larger files, from the mean length of their first records.

    Args:
        source: The source; its files are local.

    Raises:
        DataError: A file cannot be read.
    """
    files = source.files
    total = sum(file.stat().st_size for file in files.files)
    if files.trials:
        return Size(len(files.trials), True, total)
    counts = [_records(file) for file in files.files]
    if any(number is None for number, _ in counts):
        return Size(None, False, total)
    return Size(sum(number or 0 for number, _ in counts), all(exact for _, exact in counts), total)


def _records(file: Path) -> tuple[int | None, bool]:
    if file.suffix in (".parquet", ".arrow"):
        return _rows(file), True
    size, compressed = file.stat().st_size, suffix_of(file).count(".") > 1
    if layout_of(file) == "lines" and size <= (_SMALL_COMPRESSED if compressed else _COUNTED_BYTES):
        with closing(open_binary(file, lambda _: None)) as stream:
            return sum(1 for line in stream if line.strip()), True
    if compressed:
        return None, False
    lengths = list(islice(_lengths(file), _MEASURED))
    if len(lengths) < _MEASURED:
        return len(lengths), True
    return round(size / (sum(lengths) / len(lengths))), False


def _rows(file: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dataset_builders.errors import DataError

    try:
        if file.suffix == ".parquet":
            return int(pq.read_metadata(file).num_rows)
        with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
            return sum(len(batch) for batch in stream)
    except (pa.ArrowException, OSError) as error:
        cause = " ".join(str(error).split())[:200]
        raise DataError(f"{file}: not readable ({cause})") from error


def _lengths(file: Path) -> Iterator[int]:
    """Yield the bytes of each record as compact JSON with a separator."""
    with closing(read_records(file, lambda _: None)) as records:
        for record in records:
            text = json.dumps(record.value, ensure_ascii=False, default=str)
            yield len(text.encode("utf-8", "surrogatepass")) + 2
