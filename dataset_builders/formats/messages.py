"""Conversations as `messages` of `role` and `content`, the format of TRL and Axolotl.

This is the shape that TRL and Axolotl read, that the collector writes and that
`to_dataset` gives, so a written data set can be a source again. Axolotl's rows may call
the list `conversations`, and its turns `from` and `value`; see `dialects` for what else
is understood. `tools` is a list of function schemas or JSON text of one, and a field
`system` becomes the first turn where there is none, as in Axolotl.
"""

from __future__ import annotations

from dataset_builders.formats.dialects import plain_turns
from dataset_builders.formats.meaning import check_row
from dataset_builders.formats.shapes import from_raw, system_turn
from dataset_builders.readers.building import (
    Converted,
    RecordDroppedError,
    object_of,
)
from dataset_builders.readers.files import Record
from dataset_builders.readers.turn_lists import turn_list

SOURCE = "messages"
_FIELDS = ("messages", "conversations")

HONOURED = ("system", "tools")
"""Fields of a record that carry meaning and are taken into account."""


def convert(record: Record, *, source: str = SOURCE) -> Converted:
    """Convert a record in this format to a conversation.

    Args:
        record: The record.
        source: Source of the conversations whose record names none.

    Raises:
        RecordDroppedError: It is not in this format, has no trained turn, or holds something that a
            conversation cannot represent.
    """
    row = object_of(record)
    check_row(row, HONOURED)
    field = next((name for name in _FIELDS if row.get(name) is not None), None)
    if field is None:
        found = ", ".join(repr(name)[:40] for name in list(row)[:10]) or "nothing"
        raise RecordDroppedError("bad_messages", f"messages: missing, found only {found}")
    turns = plain_turns(turn_list(row[field]))
    if isinstance(turns, list):
        turns = [*system_turn(row.get("system"), turns), *turns]
    return from_raw(row, turns, source, {})
