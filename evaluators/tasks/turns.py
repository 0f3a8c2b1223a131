"""Messages of transcripts, and an agent's turn as thought and action."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dataset_builders.conversation import REASONING_FIELD, Message
from dataset_builders.endpoints.answer import Answer
from dataset_builders.endpoints.requests import request_message
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


def transcript_message(message: Message) -> dict[str, Any]:
    """Return a message as JSON values of a transcript; tool calls in the OpenAI format."""
    row: dict[str, Any] = message_record(message.role, message.content, message.reasoning)
    return request_message(message) | row


def calls_text(message: Mapping[str, Any]) -> str:
    """Return the tool calls of a transcript's message, one per line, as `name(arguments)`."""
    calls = (call["function"] for call in message.get("tool_calls") or ())
    return "\n".join(f"{call['name']}({call['arguments']})" for call in calls)


def split_message(message: Mapping[str, Any]) -> tuple[str, str]:
    """Split an assistant turn's message into thought and action, which are its calls, if any."""
    calls, text = calls_text(message), str(message.get("content"))
    return (THOUGHT_LABEL.sub("", text).strip(), calls) if calls else split_turn(text)


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
