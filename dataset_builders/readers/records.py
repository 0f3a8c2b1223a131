"""Read the records of one file, whatever its format, in bounded memory."""

from __future__ import annotations

import codecs
import re
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from dataset_builders.errors import DataError
from dataset_builders.readers.arrow_rows import row_reader
from dataset_builders.readers.compression import COMPRESSIONS, open_binary
from dataset_builders.readers.json_stream import (
    MAX_ITEM_BYTES,
    BadRecord,
    OnLost,
    iter_array,
    iter_lines,
    parse_line,
)

_TEXT_SUFFIXES = (".jsonl", ".json")
SUFFIXES = (
    ".parquet",
    *(suffix + packed for suffix in _TEXT_SUFFIXES for packed in ("", *COMPRESSIONS)),
)
"""Suffixes of readable files, in order of preference if a folder holds several formats."""

_SHARD = re.compile(r"(?P<split>.+)-(?P<index>\d{5})-of-(?P<total>\d{5})")
_BATCH_ROWS = 256
_HEAD_BYTES = 2**16

# Longest first: the mark of UTF-32 begins with that of UTF-16.
_OTHER_ENCODINGS = (
    ("UTF-32", codecs.BOM_UTF32_LE),
    ("UTF-32", codecs.BOM_UTF32_BE),
    ("UTF-16", codecs.BOM_UTF16_LE),
    ("UTF-16", codecs.BOM_UTF16_BE),
)
# ASCII at two bytes a character, the commonest case without a mark.
_UTF16_UNMARKED = re.compile(rb"(?:[\t\r\n -~]\x00){8}|(?:\x00[\t\r\n -~]){8}")
# Keys that mark a file with a single object as one record, not as a wrapper around records.
_RECORD_KEYS = frozenset(
    ("messages", "conversations", "steps", "content", "prompt", "instruction", "traces", "request")
)


class Record(NamedTuple):
    """One record as stored, with its location.

    Attributes:
        where: Its location: "db.jsonl:812" (line from 1), "db-00000-of-00001.parquet:3"
            (row from 1) or "x.json: item 17" (from 1, among those recovered).
        value: The decoded value, or a `BadRecord`.
        task_hint: Name of the split, for records that do not name their task.
    """

    where: str
    value: Any
    task_hint: str


def suffix_of(file: Path) -> str:
    """Return the suffix that names a file's format, such as ".jsonl.gz", or ""."""
    return next((suffix for suffix in SUFFIXES if file.name.endswith(suffix)), "")


def stem_of(file: Path) -> str:
    """Return a file's name without the suffix that names its format."""
    suffix = suffix_of(file)
    return file.name.removesuffix(suffix) if suffix else file.stem


def split_of(file: Path) -> str:
    """Return the split that a file name states: its stem before "-00000-of-00001"."""
    shard = shard_of(file)
    return shard[0] if shard else stem_of(file)


def shard_of(file: Path) -> tuple[str, int, int] | None:
    """Return split, index and number of shards of a file in the hub's layout, else None."""
    match = _SHARD.fullmatch(stem_of(file))
    return (match["split"], int(match["index"]), int(match["total"])) if match else None


def read_records(file: Path, on_lost: OnLost | None = None) -> Generator[Record]:
    """Read the records of a file, in bounded memory.

    Args:
        file: A .parquet file, an .arrow file of `datasets`, or .jsonl or .json, which may be
            compressed (.gz, .zst, .xz) and holds JSON lines, an array or, .json alone and
            pretty-printed, one record.
        on_lost: Called with one line per damaged place of a JSON array, and if a compressed stream
            is truncated.

    Yields:
        The records; an unreadable line comes as a `BadRecord`.

    Raises:
        DataError: The file as a whole is not of its format, or not UTF-8.
    """
    hint = split_of(file)
    if file.suffix in (".parquet", ".arrow"):
        rows = _iter_parquet(file) if file.suffix == ".parquet" else _iter_arrow(file)
        for number, value in rows:
            yield Record(f"{file.name}:{number}", value, hint)
        return

    def lost(text: str) -> None:
        if on_lost is not None:
            on_lost(f"{file.name}: {text}")

    layout = layout_of(file)
    with closing(open_binary(file, lost)) as handle:
        if layout == "object":
            yield Record(f"{file.name}: item 1", _read_object(file, handle), hint)
        elif layout == "array":
            for number, value in iter_array(handle, lost):
                yield Record(f"{file.name}: item {number}", value, hint)
        else:
            for number, value in iter_lines(handle):
                yield Record(f"{file.name}:{number}", value, hint)


def layout_of(file: Path) -> Literal["lines", "array", "object"]:
    """Return how a JSON file holds its records: one a line, in an array, or a single object.

    Raises:
        DataError: It begins like none of them.
    """
    with closing(open_binary(file, lambda _: None)) as handle:
        head = handle.read(_HEAD_BYTES)
    _check_encoding(file, head)
    head = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if suffix_of(file).startswith(".jsonl"):
        return "array" if _begins_array(head) else "lines"
    if head[:1] not in (b"[", b"{", b""):
        raise DataError(f"{file}: starts with {head[:1]!r}, expected a JSON array or JSON lines")
    if head.startswith(b"["):
        return "array"
    # The first line of a pretty-printed object; JSON lines have the whole object there.
    return "object" if head.splitlines()[:1] == [b"{"] else "lines"


def _begins_array(head: bytes) -> bool:
    """Whether a file of lines is in fact one JSON array with an item per line."""
    if not head.startswith(b"["):
        return False
    first, *lines = [line.strip() for line in head.split(b"\n") if line.strip()]
    if lines and isinstance(parse_line(first), list):
        return False
    # An array's items end in a comma, but for the last one; JSON lines do not.
    followers = [*lines, b""][1:]
    return not any(
        isinstance(parse_line(line), dict) and not follower.startswith(b"]")
        for line, follower in zip(lines, followers, strict=True)
    )


def _read_object(file: Path, handle: BinaryIO) -> Any:
    raw = handle.read(MAX_ITEM_BYTES + 1)
    if len(raw) > MAX_ITEM_BYTES:
        return BadRecord("too_large", f"object longer than {MAX_ITEM_BYTES:,} bytes")
    value = parse_line(raw)
    if isinstance(value, dict) and not _RECORD_KEYS & value.keys():
        raise DataError(f"{file}: found one JSON object, expected an array or one object a line")
    return value


def _check_encoding(file: Path, head: bytes) -> None:
    found = next((name for name, mark in _OTHER_ENCODINGS if head.startswith(mark)), None)
    if found is None and _UTF16_UNMARKED.match(head):
        found = "UTF-16"
    if found is not None:
        raise DataError(
            f"{file}: found {found} text, expected UTF-8; convert it, for example with "
            f"iconv -f {found} -t UTF-8"
        )


def _iter_parquet(file: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(file) as parquet:
            read = row_reader(parquet.schema_arrow)
            for batch in parquet.iter_batches(batch_size=_BATCH_ROWS):
                for value in batch.to_pylist():
                    number += 1
                    yield number, read(value)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        cause = " ".join(str(error).split())[:200]
        raise DataError(
            f"{file}: not readable as parquet after row {number:,} ({cause}); download it again"
        ) from error


def _iter_arrow(file: Path) -> Iterator[tuple[int, Any]]:
    """Read the rows of a file that `datasets.save_to_disk` wrote."""
    import pyarrow as pa

    number = 0
    try:
        with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
            read = row_reader(stream.schema)
            for batch in stream:
                for start in range(0, len(batch), _BATCH_ROWS):
                    for value in batch.slice(start, _BATCH_ROWS).to_pylist():
                        number += 1
                        yield number, read(value)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        cause = " ".join(str(error).split())[:200]
        raise DataError(f"{file}: not readable as Arrow after row {number:,} ({cause})") from error
