"""Split an agent's turn into thought and action."""

from __future__ import annotations

import re

from dataset_builders.conversation import REASONING_FIELD
from dataset_builders.endpoints.answer import Answer
from dataset_builders.reasoning import THOUGHT_LABEL, said_from

# Start of the action, in the formats of the paper's agent tasks: `Act: bash`,
# `Action: Operation`, `ACTION: go to desk 1`, `Answer: B.`, `Final Answer: #3`.
_ACTION = re.compile(r"^[ \t]*(?:act|action|answer|final answer)[ \t]*\d*[ \t]*:", re.I | re.M)


def action_start(text: str) -> int | None:
    """Return the index at which a turn's action begins, label included; None without one.

    A label within a thought does not count.
    """
    found = _ACTION.search(text, said_from(text))
    return found.start() if found else None


def message_record(role: str, content: str, reasoning: str | None = None) -> dict[str, str]:
    """Return a message of a transcript, JSON-ready, with the model's thoughts if there are any.

    Args:
        role: Role of the speaker.
        content: Its text; for an `Answer`, its reasoning is kept too.
        reasoning: Thoughts.
    """
    row = {"role": role, "content": str(content)}
    thoughts = reasoning or (content.reasoning if isinstance(content, Answer) else "")
    return row | {REASONING_FIELD: thoughts} if thoughts else row


def split_turn(text: str) -> tuple[str, str]:
    """Split an assistant turn into thought and action.

    Args:
        text: The turn.

    Returns:
        The thought without its label, and the action with its label; a turn without an action label
        is all thought. Only the thought's label and outer blanks are lost.
    """
    start = action_start(text)
    thought, action = (text, "") if start is None else (text[:start], text[start:])
    return THOUGHT_LABEL.sub("", thought).strip(), action.strip()
