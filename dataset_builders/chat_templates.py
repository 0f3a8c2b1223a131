"""Chat templates: those that ship here, and what one needs of a tokenizer and a message."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from dataset_builders.conversation import Message
from dataset_builders.errors import ConfigError


def template_names() -> tuple[str, ...]:
    """Names of the chat templates that ship with this package."""
    folder = files("dataset_builders") / "templates"
    return tuple(
        sorted(
            entry.name.removesuffix(".jinja")
            for entry in folder.iterdir()
            if entry.name.endswith(".jinja")
        )
    )


def load_template(name: str) -> str:
    """Text of a chat template that ships with this package, such as "llama-2".

    Raises:
        ConfigError: There is no template of that name; lists those there are.
    """
    if name not in template_names():
        raise ConfigError(
            f"chat template: found {name!r}, expected one of {', '.join(template_names())}"
        )
    return (files("dataset_builders") / "templates" / f"{name}.jinja").read_text("utf-8")


def template_message(message: Message) -> dict[str, Any]:
    """The dictionary that chat templates expect; absent fields are left out."""
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        row["tool_calls"] = [
            {
                "type": "function",
                "function": {"name": call.name, "arguments": json.loads(call.arguments)},
                **({"id": call.id} if call.id else {}),
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        row["tool_call_id"] = message.tool_call_id
    return row


def check_tokenizer(tokenizer: Any, name: str) -> None:
    """Check that a tokenizer can render and mask conversations.

    Raises:
        ConfigError: It has no chat template or no eos token, or is not a fast one.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            f"{name}: the tokenizer has no chat template. Name one: in a recipe "
            f"agenttuning: {{chat_template: {template_names()[0]}}} or Axolotl's chat_template"
        )
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(
            f"{name}: found a slow tokenizer, expected a fast one: masks need character offsets"
        )
    if not tokenizer.eos_token:
        raise ConfigError(f"{name}: the tokenizer has no eos token, so no turn could end")
