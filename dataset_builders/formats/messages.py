"""Conversations as `messages` of `role` and `content`, the format of TRL and Axolotl.

This is the shape that TRL and Axolotl read, that the collector writes and that
`to_dataset` gives, so a written data set can be a source again. Axolotl's rows may call
the list `conversations`, and its turns `from` and `value`; see `dialects` for what else
is understood. `tools` is a list of function schemas or JSON text of one, and a field
`system` becomes the first turn where there is none, as in Axolotl.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from dataset_builders.formats.dialects import plain_turns
from dataset_builders.formats.meaning import check_row
from dataset_builders.formats.shapes import from_raw, system_turn
from dataset_builders.readers.building import (
    BuildResult,
    Converted,
    Progress,
    RecordDroppedError,
    build_from_files,
    object_of,
)
from dataset_builders.readers.files import Located, Record
from dataset_builders.readers.turn_lists import turn_list

SOURCE = "messages"
_FIELDS = ("messages", "conversations")

HONOURED = ("system", "tools")
"""Fields of a record that carry meaning and are taken into account."""


def build(
    located: Located,
    *,
    label: str = SOURCE,
    limit: int | None = None,
    on_progress: Progress | None = None,
    source: str = SOURCE,
) -> BuildResult:
    """Build conversations from files in the `messages` format.

    Args:
        located: Files to read.
        label: Name of the source in the report.
        limit: Stop after this many kept conversations.
        on_progress: Called with the number of records read.
        source: Source of the conversations whose record names none.

    Returns:
        The conversations and the report. Iterating raises DataError if a file as a whole cannot be
        read.
    """
    convert = partial(_convert, source=source)
    return build_from_files(located, convert, label=label, limit=limit, on_progress=on_progress)


def _convert(record: Record, *, source: str) -> Converted:
    return convert_row(object_of(record), source=source)


def convert_row(row: Mapping[str, Any], *, source: str) -> Converted:
    """Convert a row in this format to a conversation.

    Raises:
        RecordDroppedError: It is not in this format, has no trained turn, or holds something that a
            conversation cannot represent.
    """
    check_row(row, HONOURED)
    field = next((name for name in _FIELDS if row.get(name) is not None), None)
    if field is None:
        found = ", ".join(repr(name)[:40] for name in list(row)[:10]) or "nothing"
        raise RecordDroppedError("bad_messages", f"messages: missing, found only {found}")
    turns = plain_turns(turn_list(row[field]))
    if isinstance(turns, list):
        turns = [*system_turn(row.get("system"), turns), *turns]
    return from_raw(row, turns, source, {})
