"""Prompt templates of this package, stored in files beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib import resources

import yaml

from dataset_builders.conversation import Message

_SLOT = re.compile(r"\{(\w+)\}")


@cache
def _read(name: str) -> dict[str, str]:
    folder = resources.files("dataset_builders.instructions").joinpath("prompts")
    content: dict[str, str] = yaml.safe_load(folder.joinpath(f"{name}.yaml").read_text("utf-8"))
    return content


def fill(name: str, part: str, **values: str) -> str:
    """Fill the placeholders of a part of a prompt file.

    Args:
        name: The file, without its suffix.
        part: Key within the file.
        values: Text for each `{slot}`; other braces are kept.
    """
    # In one pass: values are foreign text and may look like placeholders.
    return _SLOT.sub(lambda slot: values.get(slot[1], slot[0]), _read(name)[part]).strip()


def dialogue(name: str, **values: str) -> tuple[Message, ...]:
    """Return a system and a user turn from the parts `system` and `user` of a prompt file."""
    return (
        Message("system", fill(name, "system", **values)),
        Message("user", fill(name, "user", **values)),
    )


def transcript(messages: Sequence[Message]) -> str:
    """Format a dialogue as text, one block per turn."""
    return "\n\n".join(map(block, messages))


def block(message: Message, name: str = "", limit: int | None = None) -> str:
    """Format a turn as text under its name.

    Args:
        message: The turn.
        name: Its name; by default that of its role.
        limit: Maximum characters; the middle of a longer text is left out.
    """
    names = {"user": "ENVIRONMENT", "assistant": "AGENT", "tool": "RESULT"}
    text = _with_calls(message)
    if limit is not None and len(text) > limit:
        text = f"{text[: limit // 2]}\n[...]\n{text[-limit // 2 :]}"
    return f"[{name or names.get(message.role, message.role.upper())}]\n{text}"


def _with_calls(message: Message) -> str:
    calls = (f"{call.name}({call.arguments})" for call in message.tool_calls)
    return "\n".join(filter(None, (message.content, *calls)))
