"""Turns as trainers and APIs write them, brought into the plain shape.

The plain shape is `role`, `content`, `train`, `tool_calls`, `tool_call_id` and
`reasoning_content`. Understood beside it are `from` and `value` (ShareGPT, Axolotl's
mappings), `train`, `training` and `loss` as true or false, `weight` as 0 or 1 (OpenAI),
content as one text part, and reasoning named `reasoning` or `thinking`. What has no certain
meaning is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dataset_builders.conversation import REASONING_FIELD, TRAIN_FIELD
from dataset_builders.formats.shapes import check_media, text_of
from dataset_builders.reading.building import RecordDroppedError

# Axolotl's own defaults for names of roles.
_ROLES = {"human": "user", "gpt": "assistant", "developer": "system"}
_REASONING = ("reasoning_content", "reasoning", "thinking")
_FLAGS = (TRAIN_FIELD, "training", "loss")
_WEIGHT = "weight"
_REFUSED = {
    "function_call": "the old shape of tool_calls",
    "train_detail": "flags on parts of a turn",
    "training_detail": "flags on parts of a turn",
}

FLAG_FIELDS = (*_FLAGS, _WEIGHT)
"""Fields of a turn that tell whether the loss covers it."""


def plain_turns(raw: Any, changes: dict[str, int]) -> Any:
    """Bring the turns of a record into the plain shape.

    Args:
        raw: The turns; what is no list is returned as it is, for `from_row` to refuse.
        changes: Gets the number of turns altered, by step.

    Raises:
        RecordDroppedError: A turn holds something without a certain meaning.
    """
    if not isinstance(raw, Sequence) or isinstance(raw, str | bytes):
        return raw
    return [_plain_turn(index, turn, changes) for index, turn in enumerate(raw)]


def flag_of(raw: Mapping[str, Any], where: str) -> bool | None:
    """Return whether the loss covers a turn, None where it does not say.

    Raises:
        RecordDroppedError: A flag is of another kind (`bad_flag`), or two of them differ
            (`conflicting_flags`).
    """
    found: dict[str, bool] = {}
    for name in _FLAGS:
        value = raw.get(name)
        if value is not None:
            if not isinstance(value, bool):
                raise RecordDroppedError(
                    "bad_flag", f"{where}{name}: found {value!r:.40}, expected true or false"
                )
            found[name] = value
    weight = raw.get(_WEIGHT)
    if weight is not None:
        if not isinstance(weight, int | float) or weight not in (0, 1):
            raise RecordDroppedError(
                "bad_flag", f"{where}{_WEIGHT}: found {weight!r:.40}, expected 0 or 1"
            )
        found[_WEIGHT] = bool(weight)
    if len(set(found.values())) > 1:
        raise RecordDroppedError("conflicting_flags", f"{where}found {found}, expected one value")
    return next(iter(found.values()), None)


def _plain_turn(index: int, raw: Any, changes: dict[str, int]) -> Any:
    if not isinstance(raw, Mapping):
        return raw
    where = f"message {index}: "
    check_media(raw, where)
    for name, why in _REFUSED.items():
        if raw.get(name):
            raise RecordDroppedError("unsupported_field", f"{where}{name}: found a value: {why}")
    role = raw.get("role", raw.get("from"))
    content = text_of(raw.get("content", raw.get("value")), f"{where}content")
    return {
        "role": _ROLES.get(role, role) if isinstance(role, str) else role,
        "content": content,
        TRAIN_FIELD: flag_of(raw, where),
        "tool_calls": raw.get("tool_calls"),
        "tool_call_id": raw.get("tool_call_id"),
        REASONING_FIELD: _reasoning_of(raw, where),
    }


def _reasoning_of(raw: Mapping[str, Any], where: str) -> str:
    found = {raw[name] for name in _REASONING if isinstance(raw.get(name), str) and raw[name]}
    other = [name for name in _REASONING if raw.get(name) and not isinstance(raw[name], str)]
    if other or len(found) > 1:
        raise RecordDroppedError(
            "unsupported_field",
            f"{where}{', '.join(other or _REASONING)}: found more than one text, expected one",
        )
    return next(iter(found), "")
