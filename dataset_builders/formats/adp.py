"""Agent Data Protocol: trajectories of actions and observations (arXiv 2510.24702).

Record (schema of neulab/agent-data-protocol, versions 1.0 to 1.3): `{id, content, details}`,
`content` a list of items, with their type in `class_`. Each becomes a turn:

| item | turn |
|---|---|
| `message_action` | assistant: `description`, an empty line, `content` |
| `code_action` | assistant: `description`, an empty line, `content` in a fence of its `language` |
| `api_action` | assistant: `description`, and a tool call of `function` with `kwargs` |
| `text_observation`, `json_observation` (its JSON) | user; system if that is its `source` |
| `web_observation` | user: the `url`, then the `axtree`, or the `html` where there is none |

All actions are trained on. An observation that answers an `api_action` becomes a tool turn: by
`tool_call_id`, or, in versions without, by following it, as ADP's own converter links
them. `reasoning_content` becomes the turn's reasoning. Turns of one role in a row are
joined. For chat templates without tools, the setting
`calls_as_text` turns calls into text and tool turns into user turns. Screenshots beside a
page's text, names of participants and links to calls that are not there are left out and
counted. Refused: pictures without text, and texts whose source is an agent, of which the
schema does not say who speaks.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from dataset_builders.conversation import Conversation, Message, Role, ToolCall
from dataset_builders.errors import DataError
from dataset_builders.formats.meaning import check_row, check_turn
from dataset_builders.formats.shapes import finish, merge_turns
from dataset_builders.readers.building import (
    Converted,
    RecordDroppedError,
    id_of,
    object_of,
)
from dataset_builders.readers.files import Record
from dataset_builders.tools import parse_tool_calls

SOURCE = "adp"
_ACTIONS = ("message_action", "code_action", "api_action")
_OBSERVATIONS = ("text_observation", "json_observation", "web_observation", "image_observation")
CLASSES = (*_ACTIONS, *_OBSERVATIONS)
"""Values of `class_`, which also tell the format."""

_HONOURED_BY_ACTIONS = ("reasoning_content", "tool_call_id", "name")
_HONOURED_BY_OBSERVATIONS = ("tool_call_id", "name")
_SOURCES: dict[str, Role] = {"user": "user", "environment": "user", "system": "system"}


def convert(record: Record) -> Converted:
    """Convert a record to a conversation; its task is `details.dataset` where that is text.

    Raises:
        RecordDroppedError: It cannot be used.
    """
    value = object_of(record)
    check_row(value)
    items = value.get("content")
    if not isinstance(items, list) or not items:
        raise RecordDroppedError(
            "bad_adp", f"content: found {type(items).__name__}, expected a list of items"
        )
    changes: dict[str, int] = {}
    merged, changes["merged_turns"] = merge_turns(_turns(items, changes))
    details = value.get("details")
    task = details.get("dataset") if isinstance(details, Mapping) else None
    conversation = Conversation.create(
        merged, id=id_of(value), source=SOURCE, task=task if isinstance(task, str) else ""
    )
    return finish(conversation, changes)


def _turns(items: Sequence[Any], changes: dict[str, int]) -> Iterator[Message]:
    last_call = ""  # id of an api_action that the next item may answer
    answerable: set[str] = set()
    for index, item in enumerate(items):
        where = f"item {index}: "
        kind = item.get("class_") if isinstance(item, Mapping) else item
        if not isinstance(item, Mapping) or kind not in CLASSES:
            raise RecordDroppedError(
                "bad_adp", f"{where}class_: found {kind!r:.40}, expected one of {CLASSES}"
            )
        _count_left_out(item, answerable, changes)
        if kind in _ACTIONS:
            check_turn(item, where, _HONOURED_BY_ACTIONS)
            message = _action(item, where, index)
            last_call = message.tool_calls[0].id if message.tool_calls else ""
            answerable.update(call.id for call in message.tool_calls)
        else:
            check_turn(item, where, _HONOURED_BY_OBSERVATIONS)
            link = _optional_text(item, "tool_call_id", where)
            answers = link if link in answerable else "" if link else last_call
            message = _observation(item, where, answers)
            last_call = ""
            shown = kind == "web_observation" and item.get("image_observation") is not None
            changes["screenshots_left_out"] = changes.get("screenshots_left_out", 0) + shown
        yield message


def _count_left_out(
    item: Mapping[str, Any], answerable: Collection[str], changes: dict[str, int]
) -> None:
    """Count ignored fields: names of participants, and links to calls that do not exist."""
    link = item.get("tool_call_id") if item["class_"] != "api_action" else None
    found = {
        "names_left_out": bool(item.get("name")),
        "links_left_out": isinstance(link, str) and bool(link) and link not in answerable,
    }
    for step, is_there in found.items():
        changes[step] = changes.get(step, 0) + is_there


def _action(item: Mapping[str, Any], where: str, index: int) -> Message:
    calls: tuple[ToolCall, ...] = ()
    body = ""
    kind = item["class_"]
    if kind == "api_action":
        calls = (_call(item, where, index),)
    else:
        body = _needed_text(item, "content", where)
        if kind == "code_action":
            body = _fenced(body, _needed_text(item, "language", where))
    parts = (_optional_text(item, "description", where), body)
    content = "\n\n".join(part for part in parts if part)
    reasoning = _optional_text(item, "reasoning_content", where)
    if not calls and not content.strip() and not reasoning.strip():
        raise RecordDroppedError("empty_turn", f"{where}content: found no visible character")
    return Message(
        "assistant", content, trained=True, tool_calls=calls, reasoning=reasoning or None
    )


def _call(item: Mapping[str, Any], where: str, index: int) -> ToolCall:
    raw = {
        "id": _optional_text(item, "tool_call_id", where) or f"call_{index}",
        "function": {"name": item.get("function"), "arguments": item.get("kwargs")},
    }
    try:
        (call,) = parse_tool_calls([raw])
    except DataError as error:
        raise RecordDroppedError("bad_adp", f"{where}{error}") from error
    return call


def _fenced(code: str, language: str) -> str:
    # A fence longer than any within, so that the code stays whole.
    fence = "```"
    while fence in code:
        fence += "`"
    return f"{fence}{language}\n{code}\n{fence}"


def _observation(item: Mapping[str, Any], where: str, answers: str) -> Message:
    kind = item["class_"]
    role: Role = "user"
    if kind == "image_observation":
        raise RecordDroppedError("multimodal", f"{where}found a picture, expected text")
    if kind == "web_observation":
        text = _page(item, where)
    else:
        role = _role(item, where)
        read = _json if kind == "json_observation" else _content
        text = read(item, where)
    if answers:
        return Message("tool", text, tool_call_id=answers)
    return Message(role, text)


def _role(item: Mapping[str, Any], where: str) -> Role:
    source = item.get("source")
    if not isinstance(source, str) or source not in _SOURCES:
        raise RecordDroppedError(
            "unknown_role",
            f"{where}source: found {source!r:.40}, expected one of {', '.join(_SOURCES)}",
        )
    return _SOURCES[source]


def _content(item: Mapping[str, Any], where: str) -> str:
    return _needed_text(item, "content", where)


def _json(item: Mapping[str, Any], where: str) -> str:
    content = item.get("content")
    if not isinstance(content, Mapping):
        raise RecordDroppedError(
            "bad_adp", f"{where}content: found {type(content).__name__}, expected an object"
        )
    try:
        return json.dumps(content, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise RecordDroppedError("bad_adp", f"{where}content: not JSON ({error})") from error


def _page(item: Mapping[str, Any], where: str) -> str:
    page = _optional_text(item, "axtree", where) or _optional_text(item, "html", where)
    if not page:
        raise RecordDroppedError(
            "multimodal", f"{where}axtree, html: found neither, expected the page as text"
        )
    url = _optional_text(item, "url", where)
    return f"{url}\n\n{page}" if url else page


def _needed_text(item: Mapping[str, Any], name: str, where: str) -> str:
    if item.get(name) is None:
        raise RecordDroppedError("content_not_text", f"{where}{name}: missing, expected text")
    return _optional_text(item, name, where)


def _optional_text(item: Mapping[str, Any], name: str, where: str) -> str:
    found = item.get(name)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise RecordDroppedError(
            "content_not_text", f"{where}{name}: found {type(found).__name__}, expected text"
        )
    return found
