"""The messages that a turn answers, as one text of the rollout log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from dataset_builders.conversation import Message


def answered(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the messages that the next turn answers: the results of all calls, or the last one."""
    start = len(messages)
    while start > 0 and messages[start - 1].role == "tool":
        start -= 1
    return tuple(messages[start:]) or tuple(messages[-1:])


def answered_text(messages: Sequence[Message]) -> str:
    """Return the content of what the next turn answers; a JSON list if it is several messages."""
    contents = [message.content for message in answered(messages)]
    return contents[0] if len(contents) == 1 else json.dumps(contents)


def with_text(messages: Sequence[Message], text: str) -> list[Message]:
    """Return the messages with the contents that `answered_text` recorded."""
    contents = [text] if len(messages) == 1 else json.loads(text)
    return [replace(m, content=content) for m, content in zip(messages, contents, strict=True)]
