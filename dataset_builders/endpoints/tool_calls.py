"""Read the tool calls of an endpoint's response."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from dataset_builders.errors import DataError
from dataset_builders.tools import TOOL_NAME, ToolCall, parse_tool_calls

Calls = tuple[tuple[ToolCall, ...], tuple[str, ...]]
"""Calls that could be read, and the text of those that could not."""


def count_calls(message: Mapping[str, Any]) -> int:
    """Count the native calls of a turn, whatever their form."""
    return sum(1 for _ in _raw_calls(message))


def native_calls(message: Mapping[str, Any]) -> Calls:
    """Read the native calls of a turn.

    Arguments may be JSON text, as OpenAI has them, or an object; absent or empty ones are none. The
    deprecated field `function_call` has one call.

    Args:
        message: The `message` of a choice.

    Returns:
        Calls in their order. A call without a valid name, or whose arguments are no JSON object, is
        malformed.
    """
    calls: list[ToolCall] = []
    malformed: list[str] = []
    for raw in _raw_calls(message):
        try:
            (call,) = parse_tool_calls([_with_arguments(raw)])
        except DataError:
            malformed.append(_spelled(raw))
            continue
        if TOOL_NAME.fullmatch(call.name):
            calls.append(call)
        else:  # An endpoint would refuse the history.
            malformed.append(_spelled(raw))
    return tuple(calls), tuple(malformed)


def _raw_calls(message: Mapping[str, Any]) -> Iterator[Any]:
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        yield from calls
    elif calls:
        yield calls
    if message.get("function_call"):
        yield message["function_call"]


def _function(raw: Any) -> Any:
    return raw.get("function", raw) if isinstance(raw, Mapping) else None


def _with_arguments(raw: Any) -> Any:
    function = _function(raw)
    if isinstance(function, Mapping):
        arguments = function.get("arguments")
        if isinstance(arguments, str) and not arguments.strip():
            identifier = raw.get("id")
            return {"id": identifier, "function": {**function, "arguments": {}}}
    return raw


def _spelled(raw: Any) -> str:
    """Return a call as text; arguments that are not JSON stay as the model wrote them."""
    function = _function(raw)
    if isinstance(function, Mapping) and isinstance(function.get("arguments"), str):
        name = json.dumps(function.get("name"), ensure_ascii=False)
        return f'{{"name": {name}, "arguments": {function["arguments"]}}}'
    return json.dumps(raw, ensure_ascii=False)
