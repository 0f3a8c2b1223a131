"""Normalise turns from the field names of trainers and APIs to the plain layout.

The plain layout is `role`, `content`, `train`, `tool_calls`, `tool_call_id`,
`reasoning_content` and, of a tool turn, `name`. Also accepted are `from` and `value`
(ShareGPT, Axolotl's mappings), `train`, `training`, `loss` and `trainable` as true or false,
`masked` as their opposite, `weight` as 0 or 1 (OpenAI), content as one text part, and
reasoning named `reasoning` or `thinking`. Anything ambiguous is rejected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dataset_builders.conversation import REASONING_FIELD, TRAIN_FIELD
from dataset_builders.formats.meaning import (
    CALLS,
    FLAG_FIELDS,
    FLAGS,
    MASKED,
    REASONING,
    WEIGHT,
    check_turn,
)
from dataset_builders.formats.shapes import text_of
from dataset_builders.readers.building import RecordDroppedError

# Axolotl's default role names.
_ROLES = {"human": "user", "gpt": "assistant", "developer": "system"}
_IN_PARTS = ("reasoning_details", "thinking_blocks")
_HONOURED = (*FLAG_FIELDS, *REASONING, *CALLS)


def plain_turns(raw: Any) -> Any:
    """Convert the turns of a record to the plain layout.

    Args:
        raw: The turns; anything but a list is returned unchanged, for `from_row` to reject.

    Raises:
        RecordDroppedError: A turn holds something ambiguous.
    """
    if not isinstance(raw, Sequence) or isinstance(raw, str | bytes):
        return raw
    return [_plain_turn(index, turn) for index, turn in enumerate(raw)]


def flag_of(raw: Mapping[str, Any], where: str) -> bool | None:
    """Return a turn's training flag, None if it has none.

    Raises:
        RecordDroppedError: A flag has another type (`bad_flag`), or two flags differ
            (`conflicting_flags`).
    """
    found: dict[str, bool] = {}
    for name in (*FLAGS, MASKED):
        value = raw.get(name)
        if value is not None:
            if not isinstance(value, bool):
                raise RecordDroppedError(
                    "bad_flag", f"{where}{name}: found {value!r:.40}, expected true or false"
                )
            found[name] = value != (name == MASKED)
    weight = raw.get(WEIGHT)
    if weight is not None:
        if not isinstance(weight, int | float) or weight not in (0, 1):
            raise RecordDroppedError(
                "bad_flag", f"{where}{WEIGHT}: found {weight!r:.40}, expected 0 or 1"
            )
        found[WEIGHT] = bool(weight)
    if len(set(found.values())) > 1:
        raise RecordDroppedError("conflicting_flags", f"{where}found {found}, expected one value")
    return next(iter(found.values()), None)


def _plain_turn(index: int, raw: Any) -> Any:
    if not isinstance(raw, Mapping):
        return raw
    where = f"message {index}: "
    reasoning = _reasoning_of(raw, where)
    # Some APIs give the same reasoning as text and in parts.
    check_turn(raw, where, (*_HONOURED, *_IN_PARTS) if reasoning else _HONOURED)
    role = raw.get("role", raw.get("from"))
    role = _ROLES.get(role, role) if isinstance(role, str) else role
    content = text_of(raw.get("content", raw.get("value")), f"{where}content")
    return {
        "role": role,
        "content": content,
        TRAIN_FIELD: flag_of(raw, where),
        "tool_calls": raw.get("tool_calls"),
        "tool_call_id": raw.get("tool_call_id"),
        "name": _name_of(raw, role, where),
        REASONING_FIELD: reasoning,
    }


def _name_of(raw: Mapping[str, Any], role: Any, where: str) -> str | None:
    """Return the function name of a tool turn; names on other turns are rejected.

    Raises:
        RecordDroppedError: It is not text, or names who speaks: chat templates show no
            names of speakers.
    """
    name = raw.get("name")
    if name is None or name == "" or name in (role, raw.get("role"), raw.get("from")):
        return None
    if role != "tool":
        raise RecordDroppedError(
            "unsupported_field",
            f"{where}name: found {name!r:.40} on the turn of a {role!s:.20}: chat templates show "
            "no names of speakers; write it into the content, or leave it out",
        )
    if not isinstance(name, str):
        raise RecordDroppedError("bad_messages", f"{where}name: found {name!r:.40}, expected text")
    return name


def _reasoning_of(raw: Mapping[str, Any], where: str) -> str:
    found = {raw[name] for name in REASONING if isinstance(raw.get(name), str) and raw[name]}
    other = [name for name in REASONING if raw.get(name) and not isinstance(raw[name], str)]
    if other or len(found) > 1:
        raise RecordDroppedError(
            "unsupported_field",
            f"{where}{', '.join(other or REASONING)}: found more than one text, expected one",
        )
    return next(iter(found), "")
