"""Helpers shared by the formats that users bring."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dataset_builders.conversation import (
    REASONING_FIELD,
    TRAIN_FIELD,
    Conversation,
    Message,
    from_row,
)
from dataset_builders.errors import DataError
from dataset_builders.readers.building import Converted, RecordDroppedError, check_unicode


def system_turn(system: Any, turns: Sequence[Any]) -> list[dict[str, Any]]:
    """Return a record's `system` field as a list of turns to prepend: one or none.

    Args:
        system: The field.
        turns: The turns in the plain shape.

    Raises:
        RecordDroppedError: It is not text, or differs from the system turn that is there.
    """
    if system is None or system == "":
        return []
    if not isinstance(system, str):
        raise RecordDroppedError(
            "bad_messages", f"system: found {type(system).__name__}, expected text"
        )
    first = turns[0] if turns and isinstance(turns[0], Mapping) else {}
    if first.get("role") != "system":
        return [{"role": "system", "content": system}]
    if first.get("content") != system:
        raise RecordDroppedError(
            "bad_messages", "system: differs from the system turn, expected one of them"
        )
    return []


def text_of(content: Any, where: str) -> Any:
    """Return the text of a content given as a list of parts; return other values unchanged.

    Only a single text part is unambiguous: templates differ in how they join several.

    Raises:
        RecordDroppedError: A part is not text (`multimodal`), or there are several or
            flagged ones (`content_parts`).
    """
    if not isinstance(content, list):
        return content
    kinds = [part.get("type") if isinstance(part, Mapping) else type(part) for part in content]
    if any(kind != "text" for kind in kinds):
        raise RecordDroppedError(
            "multimodal", f"{where}: found parts {kinds!r:.100}, expected one text"
        )
    extra = {
        name
        for part in content
        for name, value in part.items()
        if name not in ("type", "text") and value is not None
    }
    if len(content) != 1 or extra:
        raise RecordDroppedError(
            "content_parts",
            f"{where}: found {len(content)} parts with fields {sorted(map(str, extra))}, expected "
            "one part without",
        )
    return content[0].get("text")


def openai_tools(raw: Any) -> Any:
    """Return tool schemas in the nested OpenAI shape, `{"type": "function", "function": {...}}`.

    Args:
        raw: A list of schemas or JSON text of one; a schema may have its name, description and
            parameters beside `type`, as in the Responses API and in verifiers.

    Raises:
        RecordDroppedError: It is not JSON, or a schema is not a function's (`bad_tools`).
    """
    if raw is None or raw == "":
        return None
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise RecordDroppedError("bad_tools", f"tools: not JSON ({error})") from error
    if not isinstance(raw, list):
        raise RecordDroppedError("bad_tools", f"tools: found {raw!r:.60}, expected a list")
    return [_nested(index, schema) for index, schema in enumerate(raw)]


def _nested(index: int, schema: Any) -> Any:
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise RecordDroppedError("bad_tools", f"tools: schema {index}: not JSON") from error
    if not isinstance(schema, Mapping) or schema.get("type", "function") != "function":
        raise RecordDroppedError(
            "bad_tools", f"tools: schema {index}: found {schema!r:.60}, expected a function"
        )
    if "function" in schema:
        return schema
    names = ("name", "description", "parameters", "strict")
    function = {name: schema[name] for name in names if schema.get(name) is not None}
    return {"type": "function", "function": function}


def merge_turns(messages: Iterable[Message]) -> tuple[list[Message], int]:
    """Join consecutive turns of one role, with an empty line between them.

    A trajectory may hold such turns (an instruction, then a page), but many chat templates reject
    them. Only user turns and assistant turns of the same `trained` are joined, their reasoning
    likewise.

    Returns:
        The turns, and how many were joined to the one before.
    """
    merged: list[Message] = []
    count = 0
    for message in messages:
        last = merged[-1] if merged else None
        if (
            last is not None
            and message.role in ("user", "assistant")
            and (last.role, last.trained) == (message.role, message.trained)
        ):
            merged[-1] = replace(
                last,
                content=_joined(last.content, message.content) or "",
                tool_calls=last.tool_calls + message.tool_calls,
                reasoning=_joined(last.reasoning, message.reasoning),
            )
            count += 1
        else:
            merged.append(message)
    return merged, count


def _joined(*texts: str | None) -> str | None:
    return "\n\n".join(text for text in texts if text) or None


def from_raw(
    row: Mapping[str, Any], turns: Sequence[Any], source: str, changes: Mapping[str, int]
) -> Converted:
    """Build a conversation from a record whose turns are in the plain layout.

    Args:
        row: The record, for `id`, `source`, `task`, `tools` and `model`.
        turns: Objects of `role`, `content`, `train`, `tool_calls`, `tool_call_id` and
            `reasoning_content`.
        source: Source if the record names none.
        changes: Turns altered, by step.

    Raises:
        RecordDroppedError: They are not in that layout (`bad_messages`), or see `finish`.
    """
    try:
        conversation = from_row({**row, "messages": turns}, source=source)
    except DataError as error:
        raise RecordDroppedError("bad_messages", str(error)) from error
    return finish(conversation, changes)


def finish(conversation: Conversation, changes: Mapping[str, int]) -> Converted:
    """Check the requirements that every conversation must meet.

    Raises:
        RecordDroppedError: No turn is trained on (`no_trained_turn`), one is empty (`empty_turn`),
            or a text holds a lone surrogate (`not_unicode`).
    """
    for name in ("id", "source", "task", "tools", "model"):
        check_unicode(getattr(conversation, name), name)
    for index, message in enumerate(conversation.messages):
        says = message.tool_calls or message.content.strip() or (message.reasoning or "").strip()
        if message.trained and not says:
            # Training on it would teach the model to end its turn at once.
            raise RecordDroppedError(
                "empty_turn", f"message {index}: content: found no visible character, expected text"
            )
        check_unicode(message.content, f"message {index}: content")
        check_unicode(message.reasoning or "", f"message {index}: {REASONING_FIELD}")
        check_unicode(message.tool_call_id, f"message {index}: tool_call_id")
        for call in message.tool_calls:
            check_unicode(call.id + call.name + call.arguments, f"message {index}: tool_calls")
    if not conversation.num_trained:
        raise RecordDroppedError(
            "no_trained_turn", f"{TRAIN_FIELD}: true on no assistant turn, expected at least one"
        )
    return Converted(conversation, changes)
