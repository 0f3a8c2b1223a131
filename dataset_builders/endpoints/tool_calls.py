"""Read the tool calls of an endpoint's response."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from dataset_builders.errors import DataError
from dataset_builders.formats.spelled_calls import SpelledTurn, read_spelled_calls
from dataset_builders.tools import TOOL_NAME, ToolCall, parse_tool_calls


def count_calls(message: Mapping[str, Any]) -> int:
    """Count the native calls of a turn, whatever their form."""
    return sum(1 for _ in _raw_calls(message))


def read_calls(message: Mapping[str, Any], text: str, tools: str) -> SpelledTurn:
    """Read the calls of a turn: the native ones or, without any, those spelled in its text.

    A server without a tool parser returns calls as the model spelled them.

    Args:
        message: The `message` of a choice.
        text: Its text.
        tools: JSON text of the tools that the request offered.

    Raises:
        ConfigError: The text may spell a call, and no transformers that reads it is installed.
    """
    turn = native_calls(message, text)
    if turn.calls or turn.malformed:
        return turn
    turn = read_spelled_calls(text, tools)
    named = [call for call in turn.calls if TOOL_NAME.fullmatch(call.name)]
    odd = (call for call in turn.calls if not TOOL_NAME.fullmatch(call.name))
    spelled = (_spelled({"name": call.name, "arguments": call.arguments}) for call in odd)
    # Line breaks between spelled calls are no text of the turn.
    rest = turn.text if turn.text.strip() else ""
    return SpelledTurn(rest, tuple(named), (*turn.malformed, *spelled))


def native_calls(message: Mapping[str, Any], text: str = "") -> SpelledTurn:
    """Read the native calls of a turn.

    Arguments may be JSON text, as OpenAI has them, or an object; absent or empty ones are none. The
    deprecated field `function_call` has one call.

    Args:
        message: The `message` of a choice.
        text: Its text.

    Returns:
        The text, and calls in their order. A call without a valid name, or whose arguments are no
        JSON object, is malformed.
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
    return SpelledTurn(text, tuple(calls), tuple(malformed))


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
