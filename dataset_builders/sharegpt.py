"""ShareGPT: general conversations to mix with the agent data (paper, section 2.2).

Record: `{id, conversations: [{from, value}]}`. In the public V3 file 36% of the
conversations start with an assistant turn, because long ones were split by length;
ids repeat with different content; and no field tells which model answered, so the
paper's GPT-4 to GPT-3.5 ratio of 1:4 cannot be rebuilt from it.
"""

from __future__ import annotations

from dataset_builders.building import (
    BuildResult,
    Converted,
    Progress,
    RecordDroppedError,
    Turn,
    build_from_files,
    check_alternation,
    check_filled,
    id_of,
    object_of,
    parse_turn,
    turns_of,
)
from dataset_builders.conversation import Conversation, Message, Role
from dataset_builders.files import Located, Record

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


def build(
    located: Located,
    *,
    label: str = SOURCE,
    limit: int | None = None,
    on_progress: Progress | None = None,
) -> BuildResult:
    """Build conversations from ShareGPT files; every assistant turn is trained.

    Args:
        located: Files to read.
        label: Name of the source in the report.
        limit: Stop after this many kept conversations.
        on_progress: Called with the number of records read.

    Returns:
        Conversations of source "sharegpt", and the report. Its `changed` counts the
        turns that the repairs removed from the conversations kept.

    Raises:
        DataError: A file as a whole cannot be read.
    """
    return build_from_files(located, _convert, label=label, limit=limit, on_progress=on_progress)


def strip_leading_assistant(turns: list[Turn]) -> list[Turn]:
    """Remove assistant turns before the first user turn: nothing asked for them."""
    start = 1 if turns and turns[0].role == "system" else 0
    first = start
    while first < len(turns) and turns[first].role == "assistant":
        first += 1
    return turns[:start] + turns[first:]


def strip_trailing_user(turns: list[Turn]) -> list[Turn]:
    """Remove user turns after the last assistant turn: nothing answers them."""
    end = len(turns)
    while end and turns[end - 1].role == "user":
        end -= 1
    return turns[:end]


_REPAIRS = (strip_leading_assistant, strip_trailing_user)


def _convert(record: Record) -> Converted:
    value = object_of(record)
    id_ = id_of(value)
    turns = [parse_turn(index, raw, _ROLES) for index, raw in enumerate(turns_of(value))]
    changes: dict[str, int] = {}
    for repair in _REPAIRS:
        before = len(turns)
        turns = repair(turns)
        changes[repair.__name__] = before - len(turns)
    if not any(turn.role == "assistant" for turn in turns):
        raise RecordDroppedError(
            "no_assistant_turn", "found no assistant turn after a user turn, expected at least one"
        )
    check_filled(turns, "empty_turn")
    check_alternation(turns)
    messages = [
        Message(turn.role, turn.content, trained=turn.role == "assistant") for turn in turns
    ]
    return Converted(Conversation.create(messages, id=id_, source=SOURCE), changes)
