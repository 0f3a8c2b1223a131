"""How much of a dialogue the acting model is shown: AgentBench.old's rule.

Its `Session` counts segments, not tokens, so that every model sees the same turns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from dataset_builders.conversation import Message

MAX_SEGMENTS = 3500
_LETTERS_PER_SEGMENT = 7
_ASCII_SEGMENT = re.compile(r"[A-Za-z]{1,7}|[^ \n]")


def count_segments(text: str) -> int:
    """Segments of a text: runs of letters in sevens, and every other visible character.

    Only the blank and the line break are free; a tab counts.
    """
    if text.isascii():  # As all below, in a tenth of the time.
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
    """Leave out old turns where a dialogue has grown long.

    What it begins with always stays, and says how many messages are left out: the first
    message or, behind system messages, the first one of the user's, which holds the task. Of
    the others the latest stay that fit, beginning with one of the assistant's.

    Args:
        messages: The dialogue: perhaps system messages, then user and assistant in turn,
            ending with the user.
        max_segments: What all that is shown must stay below.
    """
    roles = [message.role for message in messages]
    # AgentBench knows no system message; its first message is the user's.
    head = roles.index("user") + 1 if "user" in roles else 1
    segments = sum(count_segments(message.content) for message in messages[:head])
    kept = len(messages)
    while kept > head:
        segments += count_segments(messages[kept - 1].content)
        if segments >= max_segments:
            break
        kept -= 1
    if kept < len(messages) and messages[kept].role == "user":
        kept += 1
    omitted = kept - head
    if not omitted:
        return tuple(messages)
    notice = f"\n\n[NOTICE] {omitted} messages are omitted."
    last = messages[head - 1]
    told = replace(last, content=last.content + notice)
    return *messages[: head - 1], told, *messages[kept:]
