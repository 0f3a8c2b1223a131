"""Read any file's records as plain text, for text comparison.

An evaluation set is rarely made of conversations: GSM8K has questions and answers, MMLU a
CSV file without a header. Here a record's text is that of its turns, if it has any, or else
of all its fields that hold text, one below the other.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dataset_builders.errors import DataError
from dataset_builders.readers.files import locate
from dataset_builders.readers.json_stream import BadRecord
from dataset_builders.readers.records import read_records, suffix_of

_TURNS = ("messages", "conversations")
_SAID = ("content", "value", "text", "reasoning", "reasoning_content", "thinking", "tool_calls")
_CSV = ".csv"


class Text(NamedTuple):
    """A record's text.

    Attributes:
        where: The record, such as "test.jsonl:12".
        text: Its text.
    """

    where: str
    text: str


@dataclass(slots=True)
class TextReport:
    """Counts of the records read.

    Attributes:
        source: What was read.
        read: Records read.
        skipped: Records without a text, by reason.
        lost: Damage to files; one line each.
    """

    source: str
    read: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        return {
            "source": self.source,
            "read": self.read,
            "skipped": dict(self.skipped),
            "lost": list(self.lost),
        }


def read_texts(path: str, report: TextReport, fields: Sequence[str] = ()) -> Iterator[Text]:
    """Read the texts of a source.

    Args:
        path: File, folder or hub dataset id; beside the builders' formats a CSV file, or
            a folder of them.
        report: Filled while reading.
        fields: Top-level fields whose texts are taken; none: turns, or else all fields.

    Yields:
        One text for each record that has any.

    Raises:
        SourceNotFoundError: There is no such source.
        DataError: A file cannot be read, no record was found, or none has a text.
    """
    for where, value in _values(path, report):
        report.read += 1
        if isinstance(value, BadRecord):
            report.skipped[value.reason] += 1
            continue
        text = "\n".join(part for part in _parts(value, fields) if part.strip())
        if text:
            yield Text(where, text)
        else:
            report.skipped["no_text"] += 1
    if report.read == report.skipped.total():
        named = f" in field {', '.join(fields)}" if fields else ""
        counts = ", ".join(f"{name} {count:,}" for name, count in report.skipped.items())
        found = f"{report.read:,} records, none with text{named} ({counts})"
        raise DataError(f"{path}: found {found if report.read else 'no record'}, expected texts")


def _values(path: str, report: TextReport) -> Iterator[tuple[str, Any]]:
    tables = _tables(Path(path).expanduser()) if path else []
    for table in tables:
        yield from _rows(table)
    if not tables:
        found = locate(path, all_splits=True)
        report.lost.extend(found.unread_lines())
        for file in found.files:
            for record in read_records(file, report.lost.append):
                yield record.where, record.value


def _tables(place: Path) -> list[Path]:
    if place.is_file():
        return [place] if place.suffix == _CSV else []
    if not place.is_dir() or any(suffix_of(file) for file in place.iterdir()):
        return []
    return sorted(place.glob(f"*{_CSV}"))


def _rows(table: Path) -> Iterator[tuple[str, Any]]:
    with table.open(encoding="utf-8-sig", newline="") as handle:
        reader = csv.reader(handle)
        try:
            for row in reader:
                yield (
                    f"{table.name}:{reader.line_num}",
                    {str(n): cell for n, cell in enumerate(row)},
                )
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(
                f"{table}: after line {reader.line_num:,}: {error}, expected UTF-8 CSV"
            ) from error


def _parts(value: Any, fields: Sequence[str]) -> Iterable[str]:
    if not isinstance(value, Mapping):
        return () if fields else _strings(value)
    if fields:
        return (part for name in fields for part in _strings(value.get(name)))
    for name in _TURNS:
        turns = value.get(name)
        if isinstance(turns, list):
            return _turn_strings(turns)
    return _strings(value)


def _turn_strings(turns: list[Any]) -> Iterator[str]:
    for turn in turns:
        if isinstance(turn, Mapping):
            for key in _SAID:
                yield from _said(key, turn.get(key))
        else:
            yield from _strings(turn)


def _said(key: str, value: Any) -> Iterator[str]:
    # A content may be a list of parts; only their texts count, not the types.
    if key == "tool_calls":
        yield from _strings(value)
        return
    for part in value if isinstance(value, list) else [value]:
        yield from _strings(part.get("text") if isinstance(part, Mapping) else part)


def _strings(value: Any) -> Iterator[str]:
    # A stack, not recursion: user data may be nested deeply.
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping):
            stack.extend(reversed(list(item.values())))
        elif isinstance(item, list | tuple):
            stack.extend(reversed(item))
