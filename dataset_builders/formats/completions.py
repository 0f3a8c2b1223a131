"""Prompt-answer pairs: TRL's `prompt` and `completion`, and the Alpaca format.

`prompt` and `completion` are lists of messages, of which the loss covers the completion's
assistant turns, or two texts, which become a user turn and an assistant turn; `system`
becomes a system turn.

Alpaca's `instruction`, `input` (may be empty) and `output` become a user turn, the first
two joined by a line break as Axolotl's chat layout does, and an assistant turn; `system`
becomes a system turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dataset_builders.conversation import TRAIN_FIELD
from dataset_builders.formats.dialects import plain_turns
from dataset_builders.formats.meaning import check_row
from dataset_builders.formats.messages import HONOURED
from dataset_builders.formats.shapes import from_raw, system_turn
from dataset_builders.readers.building import (
    Converted,
    RecordDroppedError,
    object_of,
)
from dataset_builders.readers.files import Record
from dataset_builders.readers.turn_lists import turn_list

SOURCE = "completions"


def convert_pair(record: Record, *, source: str = SOURCE) -> Converted:
    """Convert a record of `prompt` and `completion` to a conversation; see `messages.convert`.

    Raises:
        RecordDroppedError: It is not in this format, or has no trained turn.
    """
    row = object_of(record)
    # In this shape, TRL's for KTO, a label may also be written as 0 or text.
    if row.get("label") in (0, "false", "False"):
        row = {**row, "label": False}
    check_row(row, HONOURED)
    system = row.get("system")
    # A prompt or completion given as text stays text, even if it looks like JSON.
    prompt, completion = (
        value if isinstance(value, str) else turn_list(value)
        for value in (row.get("prompt"), row.get("completion"))
    )
    if isinstance(prompt, str) and isinstance(completion, str):
        turns = _pair(prompt, completion)
        return from_raw(row, [*system_turn(system, turns), *turns], source, {})
    if not isinstance(prompt, list) or not isinstance(completion, list):
        kinds = f"{type(prompt).__name__} and {type(completion).__name__}"
        raise RecordDroppedError(
            "bad_pair", f"prompt, completion: found {kinds}, expected two texts or two lists"
        )
    context = plain_turns(prompt)
    for index, turn in enumerate(context):
        if isinstance(turn, dict):
            if turn[TRAIN_FIELD]:
                raise RecordDroppedError(
                    "conflicting_flags", f"prompt: message {index}: found a flag that is true"
                )
            turn[TRAIN_FIELD] = False
    turns = [*system_turn(system, context), *context, *plain_turns(completion)]
    return from_raw(row, turns, source, {})


def convert_alpaca(record: Record, *, source: str = SOURCE) -> Converted:
    """Convert a record in the Alpaca format to a conversation; see `messages.convert`.

    Raises:
        RecordDroppedError: It is not of this shape, or a text is empty.
    """
    row = object_of(record)
    check_row(row, HONOURED)
    instruction, output = _text(row, "instruction"), _text(row, "output")
    parts = [part for part in (instruction, _text(row, "input", optional=True)) if part.strip()]
    turns = _pair("\n".join(parts), output)
    system = _text(row, "system", optional=True)
    if system:
        turns.insert(0, {"role": "system", "content": system})
    return from_raw(row, turns, source, {})


def _pair(prompt: str, completion: str) -> list[dict[str, Any]]:
    for name, text in (("prompt", prompt), ("completion", completion)):
        if not text or text.isspace():
            raise RecordDroppedError(
                "empty_turn", f"{name}: found no visible character, expected text"
            )
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]


def _text(row: Mapping[str, Any], name: str, *, optional: bool = False) -> str:
    value = row.get(name)
    if value is None and optional:
        return ""
    if not isinstance(value, str):
        found = "nothing" if name not in row else type(value).__name__
        raise RecordDroppedError("content_not_text", f"{name}: found {found}, expected text")
    return value
