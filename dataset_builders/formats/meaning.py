"""Fields that change what is trained on: a reader must support each or reject the record.

Besides the fields of its own format, a record may hold others that determine what the model is
shown or trained on: flags of turns, tools, images, labels of preference data. A reader that does
not support one must not drop it silently. All readers check the two tables here; each reader lists
the fields that it supports. Fields in no table are metadata, and are ignored.

The names are those of the OpenAI API, TRL, Axolotl, LLaMA-Factory, ms-swift and torchtune.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from dataset_builders.finish_reason import is_cut
from dataset_builders.readers.building import RecordDroppedError

FLAGS = ("train", "training", "loss", "trainable")
"""Boolean fields of a turn that state whether the loss covers it."""

MASKED = "masked"
"""Boolean field of a turn that negates `FLAGS` (torchtune)."""

WEIGHT = "weight"
"""The same as a number, 0 or 1 (OpenAI)."""

FLAG_FIELDS = (*FLAGS, MASKED, WEIGHT)
"""All fields of a turn that determine whether the loss covers it."""

REASONING = ("reasoning_content", "reasoning", "thinking")
"""Fields of a turn that hold its reasoning as text."""

CALLS = ("tool_calls", "tool_call_id", "name")
"""Fields of a turn that belong to tool calls and their results."""

_MESSAGES = (*FLAG_FIELDS, *REASONING, *CALLS)
_REMEDY = "; read it as format messages"
_ENDINGS = ("finish_reason", "stop_reason")
_MEDIA = ("images", "image", "videos", "video", "audio", "audios")


class Field(NamedTuple):
    """A field that carries meaning, and how records with it are rejected.

    Attributes:
        why: What it means.
        carries: Whether a value has an effect: an empty list of images does not.
        reason: Name under which a record rejected for it is counted.
    """

    why: str
    carries: Callable[[Any], bool] = bool
    reason: str = "unsupported_field"


def _is_given(value: Any) -> bool:
    return value is not None


def _is_filled(value: Any) -> bool:
    # Numbers and booleans always have an effect here.
    return value is not None and value not in ("", [], {})


def _is_false(value: Any) -> bool:
    # Only the boolean: a class label or a measured loss of 0 is metadata.
    return value is False


def _is_weight(value: Any) -> bool:
    try:
        return value is not None and float(value) != 1
    except (TypeError, ValueError):
        return False


def _is_text(value: Any) -> bool:
    # Some data sets give a reasoning mode here, "on" or "off".
    return isinstance(value, str) and len(value.split()) > 1


def _is_recipient(value: Any) -> bool:
    return _is_filled(value) and value != "all"


def _is_cut(value: Any) -> bool:
    return isinstance(value, str) and is_cut(value)


_MEDIA_FIELDS = {name: Field("it is not text", bool, "multimodal") for name in _MEDIA}
_PAIR = "a preference pair; keep only the messages to learn"
_UNWANTED = "an answer marked as undesirable (KTO)"
_UNTRAINED = "the record is not to be trained"

_CUT = Field("the answer was cut at the token limit", _is_cut, "cut_turn")

ROW_FIELDS: dict[str, Field] = {
    **_MEDIA_FIELDS,
    "system": Field("a system prompt"),
    "system_prompt": Field("a system prompt; name it system if the model is to see it"),
    "system_message": Field("a system prompt; name it system if the model is to see it"),
    "tools": Field("functions that the model may call"),
    "functions": Field("the former form of tools"),
    "documents": Field("they would be rendered into the prompt"),
    "chat_template_kwargs": Field("it changes how the conversation is rendered"),
    "history": Field("earlier turns, expected in messages"),
    "chosen": Field(_PAIR, bool, "preference"),
    "rejected": Field(_PAIR, bool, "preference"),
    "label": Field(_UNWANTED, _is_false, "undesirable"),
    "kto_tag": Field(_UNWANTED, _is_false, "undesirable"),
    **{name: Field(_UNTRAINED, _is_false) for name in FLAGS},
    WEIGHT: Field("a weight of the record", _is_weight),
    "loss_weight": Field("a weight of the record", _is_weight),
    "sample_weight": Field("a weight of the record", _is_weight),
    **{name: Field("reasoning outside of the turns", _is_text) for name in REASONING},
    **dict.fromkeys(_ENDINGS, _CUT),
}
"""Fields of a record. `prompt` is none: many data sets repeat the first turn there."""

TURN_FIELDS: dict[str, Field] = {
    **_MEDIA_FIELDS,
    **{name: Field("a training flag", _is_given) for name in FLAG_FIELDS},
    **{
        name: Field("flags on parts of a turn, or weights of it", _is_filled)
        for name in ("train_detail", "training_detail", "mask", "loss_mask", "loss_weight")
    },
    "loss_scale": Field("a weight of the turn", _is_weight),
    **{name: Field("reasoning", _is_filled) for name in REASONING},
    "reasoning_details": Field("reasoning in parts; give it as reasoning_content"),
    "thinking_blocks": Field("reasoning in parts; give it as reasoning_content"),
    "tool_calls": Field("tool calls", _is_filled),
    "tool_call_id": Field("the call that this turn answers", _is_filled),
    "name": Field("a speaker's or function's name", _is_filled),
    "function_call": Field("the former form of tool_calls"),
    "tools": Field("functions that the model may call; give them in the record's tools"),
    "functions": Field("the former form of tools; give them in the record's tools"),
    "documents": Field("they would be rendered into the prompt"),
    **dict.fromkeys(_ENDINGS, _CUT),
    "refusal": Field("a refusal in place of content"),
    "channel": Field("a channel of the harmony format", lambda value: value not in (None, "final")),
    "recipient": Field("a recipient of the harmony format", _is_recipient),
}
"""Fields of a turn."""


def check_row(row: Mapping[str, Any], honours: Collection[str] = ()) -> None:
    """Reject a record with a field that carries meaning and that its reader does not support.

    Args:
        row: The record.
        honours: Fields of `ROW_FIELDS` that the reader takes into account.

    Raises:
        RecordDroppedError: There is one (`unsupported_field`, `multimodal`, `preference`,
            `undesirable`).
    """
    for name, field in ROW_FIELDS.items():
        if name in row and name not in honours and field.carries(row[name]):
            remedy = _REMEDY if name in ("system", "tools") and "conversations" in row else ""
            found = "found false" if row[name] is False else "found a value"
            raise RecordDroppedError(field.reason, f"{name}: {found}: {field.why}{remedy}")


def check_turn(turn: Mapping[str, Any], where: str, honours: Collection[str] = ()) -> None:
    """Reject a turn with a field that carries meaning and that its reader does not support.

    Args:
        turn: The turn as it was read.
        where: Prefix for the field's name in messages, such as "turn 3: ".
        honours: Fields of `TURN_FIELDS` that the reader takes into account.

    Raises:
        RecordDroppedError: There is one (`unsupported_field`, `multimodal`).
    """
    for name, field in TURN_FIELDS.items():
        if name in turn and name not in honours and field.carries(turn[name]):
            remedy = _REMEDY if name in _MESSAGES and "from" in turn else ""
            found = f"found {turn[name]!r:.40}"
            raise RecordDroppedError(field.reason, f"{where}{name}: {found}: {field.why}{remedy}")


def carried(values: Mapping[str, Any], table: Mapping[str, Field], names: Collection[str]) -> bool:
    """Whether any of these fields of a record or turn carries meaning.

    Args:
        values: The record or turn.
        table: `ROW_FIELDS` or `TURN_FIELDS`.
        names: Fields to look at.
    """
    return any(name in values and table[name].carries(values[name]) for name in names)
