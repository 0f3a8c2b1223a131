"""Truncate a dialogue's history by AgentBench.old's rule.

Its `Session` counts segments, not tokens, so that every model sees the same turns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from dataset_builders.conversation import Message
from dataset_builders.encoding.history_cut import omit

MAX_SEGMENTS = 3500
_LETTERS_PER_SEGMENT = 7
_ASCII_SEGMENT = re.compile(r"[A-Za-z]{1,7}|[^ \n]")


def count_segments(text: str) -> int:
    """Count segments of a text: letters in runs of up to seven, and every other visible character.

    Only blanks and line breaks are not counted; a tab is.
    """
    if text.isascii():  # Same result as below, in a tenth of the time.
        return len(_ASCII_SEGMENT.findall(text))
    segments = 0
    for letters, run in groupby(text, str.isalpha):
        characters = list(run)
        if letters:
            segments += -(-len(characters) // _LETTERS_PER_SEGMENT)
        else:
            segments += sum(character not in " \n" for character in characters)
    return segments


def trim_history(
    messages: Sequence[Message], max_segments: int = MAX_SEGMENTS
) -> tuple[Message, ...]:
    """Remove old turns from a long dialogue.

    The start is always kept, and states how many messages are omitted: the first message or, after
    system messages, the first user message, which holds the task. Of the others the latest that fit
    are kept, beginning with an assistant message.

    Args:
        messages: The dialogue: perhaps system messages, then user and assistant in turn,
            ending with the user or with results of tools, which stay with their calls.
        max_segments: Upper bound, exclusive, of the segments shown.
    """
    roles = [message.role for message in messages]
    # AgentBench has no system messages; its first message is the user's.
    head = roles.index("user") + 1 if "user" in roles else 1
    segments = sum(_segments(message) for message in messages[:head])
    kept = len(messages)
    while kept > head:
        segments += _segments(messages[kept - 1])
        if segments >= max_segments:
            break
        kept -= 1
    if kept < len(messages) and messages[kept].role == "user":
        kept += 1
    while kept < len(messages) and messages[kept].role == "tool":
        kept += 1
    return omit(messages, head, kept)


def _segments(message: Message) -> int:
    calls = (f"{call.name} {call.arguments}" for call in message.tool_calls)
    return count_segments(message.content) + sum(map(count_segments, calls))
