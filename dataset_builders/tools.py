"""Tool schemas and tool calls in the OpenAI format, and metadata fields."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dataset_builders.errors import DataError

TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""Names of tools that endpoints accept."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One function call of an assistant turn.

    Attributes:
        name: Name of the function.
        arguments: Arguments as JSON text of an object. Text, because Arrow has no
            column type for objects whose keys differ from row to row.
        id: Identifier that a tool message answers to, or "".
    """

    name: str
    arguments: str
    id: str = ""


def parse_tools(raw: object) -> str:
    """Parse the schemas of the functions that an assistant may call.

    Args:
        raw: None, a list of schemas (`{"type": "function", "function": {"name": ...}}`, or
            `{"name": ...}` alone) or JSON text of such a list.

    Returns:
        JSON text of the list, with one way of spacing and escaping, so that equal lists are
        equal texts; "" for no tools. Keys keep their order, which templates show.

    Raises:
        DataError: It is neither, or a schema does not name a function.
    """
    if raw is None or raw == "":
        return ""
    schemas: Any = _parse_json(raw, "tools") if isinstance(raw, str) else raw
    if not isinstance(schemas, Sequence) or isinstance(schemas, str | bytes):
        raise DataError(f"tools: found {type(schemas).__name__}, expected a list of schemas")
    for index, schema in enumerate(schemas):
        function = schema.get("function", schema) if isinstance(schema, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(name, str) or not name:
            raise DataError(
                f"tools: schema {index}: function name: found {name!r:.40}, expected text"
            )
    return _to_json(list(schemas), "tools") if schemas else ""


def tool_names(tools: str) -> list[str]:
    """Return the names of the functions in JSON text of `parse_tools`."""
    schemas = json.loads(tools) if tools else []
    return [schema.get("function", schema)["name"] for schema in schemas]


def parse_tool_calls(raw: object) -> tuple[ToolCall, ...]:
    """Parse the tool calls of one turn.

    Args:
        raw: None, or a list of `{"id": ..., "function": {"name": ..., "arguments": ...}}`;
            arguments are an object or JSON text of one.

    Raises:
        DataError: It is neither, or a call has another format.
    """
    if raw is None:
        return ()
    if not isinstance(raw, Sequence) or isinstance(raw, str | bytes):
        raise DataError(f"tool_calls: found {type(raw).__name__}, expected a list")
    return tuple(_parse_tool_call(call) for call in raw)


def _parse_tool_call(raw: object) -> ToolCall:
    function = raw.get("function", raw) if isinstance(raw, Mapping) else None
    if not isinstance(raw, Mapping) or not isinstance(function, Mapping):
        raise DataError(f"tool_calls: found {raw!r:.200}, expected an object with function")
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not name:
        raise DataError(f"tool_calls: name: found {name!r:.40}, expected text")
    if arguments is None:
        arguments = {}
    where = "tool_calls: arguments"
    parsed = _parse_json(arguments, where) if isinstance(arguments, str) else arguments
    if not isinstance(parsed, Mapping):
        raise DataError(f"{where}: found {arguments!r:.200}, expected a JSON object")
    return ToolCall(name=name, arguments=_to_json(parsed, where), id=_id_of(raw))


def _id_of(raw: Mapping[str, Any]) -> str:
    # 0 is a valid id, too.
    value = raw.get("id")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value)


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    # Not only JSONDecodeError: Python's parser also rejects some numbers and depths.
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error})") from error


def _to_json(value: object, where: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error})") from error


def metadata_text(value: object) -> str:
    """Return a metadata field as text: "" for null, text itself, otherwise its JSON.

    Data sets hold numbers, lists and objects in `id`, `source`, `task` and `model`; none of
    them is a reason to lose a record. A number is the same text as an integer and a float.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def finite_number(value: object) -> float | None:
    """Return a finite number as float; None for anything else, true and false included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
