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
    names = {"user": "ENVIRONMENT", "assistant": "AGENT", "tool": "RESULT"}
    return "\n\n".join(
        f"[{names.get(message.role, message.role.upper())}]\n{_with_calls(message)}"
        for message in messages
    )


def _with_calls(message: Message) -> str:
    calls = (f"{call.name}({call.arguments})" for call in message.tool_calls)
    return "\n".join(filter(None, (message.content, *calls)))
