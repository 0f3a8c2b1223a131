"""Ids of tool calls for chat templates that reject all but nine letters or digits (Mistral's)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b

from dataset_builders.conversation import Message
from dataset_builders.errors import MaskError

_SHORT = re.compile("[A-Za-z0-9]{9}")


def has_long_ids(messages: Sequence[Message]) -> bool:
    """Whether an id in the messages is not nine letters or digits."""
    ids = [call.id for message in messages for call in message.tool_calls]
    ids += [message.tool_call_id for message in messages if message.tool_call_id]
    return not all(map(_SHORT.fullmatch, ids))


def with_short_ids(messages: Sequence[Message]) -> list[Message]:
    """Replace ids that are not nine letters or digits by nine digits of their digests."""
    return [_renamed(message, _short) for message in messages]


def rejects_long_ids(render: Callable[[Sequence[Message]], str], probe: Sequence[Message]) -> bool:
    """Whether a template renders a conversation only if its ids are short.

    Args:
        render: Renders messages; raises MaskError if the template rejects them.
        probe: A conversation with a call whose id is short.
    """
    try:
        render(probe)
    except MaskError:
        return False
    try:
        render([_renamed(message, lambda _: "call_0_0") for message in probe])
    except MaskError:
        return True
    return False


def _renamed(message: Message, rename: Callable[[str], str]) -> Message:
    calls = tuple(replace(call, id=rename(call.id)) for call in message.tool_calls)
    answered = message.tool_call_id and rename(message.tool_call_id)
    return replace(message, tool_calls=calls, tool_call_id=answered)


def _short(name: str) -> str:
    if _SHORT.fullmatch(name):
        return name
    return blake2b(name.encode("utf-8", "replace")).hexdigest()[:9]
