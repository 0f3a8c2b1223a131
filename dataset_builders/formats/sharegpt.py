"""ShareGPT: general conversations to mix with the agent data (paper, section 2.2).

Record: `{id, conversations: [{from, value}]}`. In the public V3 file 36% of the
conversations start with an assistant turn, because long ones were split by length;
ids repeat with different content; and no field tells which model answered, so the
paper's GPT-4 to GPT-3.5 ratio of 1:4 cannot be rebuilt from it. Other exports have a key
`model`, or come in one file for each model. What else is repaired or refused: `cleaning`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dataset_builders.cleaning.provenance import model_of
from dataset_builders.cleaning.steps import Cleaner
from dataset_builders.conversation import Conversation, Message, Role
from dataset_builders.formats.dialects import flag_of
from dataset_builders.formats.meaning import FLAG_FIELDS, check_row, check_turn
from dataset_builders.readers.building import (
    Converted,
    RecordDroppedError,
    Turn,
    check_alternation,
    check_filled,
    id_of,
    object_of,
    parse_turn,
    turns_of,
)
from dataset_builders.readers.files import Record

HUB_ID = "anon8231489123/ShareGPT_Vicuna_unfiltered"
DATA_FILES: tuple[str, ...] = ("ShareGPT_V3_unfiltered_cleaned_split.json",)
SOURCE = "sharegpt"

_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "system": "system",
}


def convert(record: Record, *, cleaner: Cleaner) -> Converted:
    """Convert a record to a conversation.

    Every assistant turn is trained on, except those with a flag that is false.

    Args:
        record: The record.
        cleaner: Repairs turns and rejects duplicates; `changes` counts its repairs.

    Raises:
        RecordDroppedError: It cannot be used.
    """
    value = object_of(record)
    check_row(value)
    id_ = id_of(value)
    model = model_of(value)
    turns = [_turn(index, raw) for index, raw in enumerate(turns_of(value))]
    turns, changes = cleaner.repair(turns)
    if not any(turn.role == "assistant" for turn in turns):
        raise RecordDroppedError(
            "no_assistant_turn", "found no assistant turn after a user turn, expected at least one"
        )
    check_filled(turns, "empty_turn")
    check_alternation(turns)
    messages = [Message(turn.role, turn.content, trained=_is_trained(turn)) for turn in turns]
    if not any(message.trained for message in messages):
        raise RecordDroppedError(
            "no_trained_turn", "found a flag that is false on every gpt turn, expected one without"
        )
    cleaner.check(turns, record.where)
    return Converted(Conversation.create(messages, id=id_, source=SOURCE, model=model), changes)


def _is_trained(turn: Turn) -> bool:
    return turn.role == "assistant" and turn.flag is not False


def _turn(index: int, raw: Mapping[str, Any]) -> Turn:
    where = f"turn {index}: "
    check_turn(raw, where, FLAG_FIELDS)
    turn, flag = parse_turn(index, raw, _ROLES), flag_of(raw, where)
    if flag and turn.role != "assistant":
        raise RecordDroppedError(
            "bad_flag", f"{where}found a flag that is true on a {turn.role} turn, expected none"
        )
    return turn._replace(flag=flag)
