from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from dataset_builders.conversation import (
    Conversation,
    Message,
    ToolCall,
    from_row,
    optional_columns,
    parse_messages,
    to_row,
    uses_tools,
)
from dataset_builders.errors import DataError
from dataset_builders.sources.rows import to_dataset
from dataset_builders.tools import parse_tools

CALL = ToolCall("search", '{"q": "é"}', "c1")
PLAIN = Conversation.create(
    [Message("system", "s"), Message("user", "u"), Message("assistant", "a", trained=True)],
    id="x_1", source="test", task="db",
)  # fmt: skip
TOOLS = Conversation.create(
    [
        Message("user", "u"),
        Message("assistant", "", trained=True, tool_calls=(CALL,)),
        Message("tool", "result", tool_call_id="c1"),
        Message("assistant", "a", trained=False),
    ]
)


@pytest.mark.parametrize("tools", [False, True])
def test_row_round_trip(tools: bool) -> None:
    assert from_row(to_row(PLAIN, tool_calls=tools)) == PLAIN
    assert from_row(to_row(TOOLS, tool_calls=True)) == TOOLS


def test_tools_and_trained_turns() -> None:
    assert uses_tools([PLAIN, TOOLS])
    assert not uses_tools([PLAIN])
    assert (PLAIN.num_trained, TOOLS.num_trained) == (1, 1)


def test_train_is_true_on_assistant_turns_by_default() -> None:
    raw = [
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": "b", "train": None},
        {"role": "assistant", "content": "c", "train": False},
    ]
    assert [m.trained for m in parse_messages(raw)] == [False, True, True, False]


def test_arguments_become_text() -> None:
    call = {"id": None, "function": {"name": "f", "arguments": {"a": [1, "é"]}}}
    flat = {"name": "g", "arguments": None}
    raw = [{"role": "assistant", "content": None, "tool_calls": [call, flat]}]
    (message,) = parse_messages(raw)
    assert message.content == ""
    assert message.tool_calls == (ToolCall("f", '{"a": [1, "é"]}'), ToolCall("g", "{}"))


def user(**fields: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a", **fields}]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("text", "messages: found str, expected a list"),
        ([], "messages: found none, expected at least one"),
        (["x"], "message 0: found str, expected an object"),
        (user(role="bot"), "message 1: role: found 'bot', expected one of system, user"),
        (user(content=3), "message 1: content: found int, expected text"),
        (user(content=None), "message 1: content: found NoneType, expected text"),
        (user(train="false"), "message 1: train: found 'false', expected true or false"),
        (user(role="user", train=True), "message 1: train: true on a user turn"),
        (user(tool_calls="x"), "message 1: tool_calls: found str, expected a list"),
        (user(tool_calls=[{"function": {}}]), "tool_calls: name: found None, expected text"),
        (user(tool_calls=[{"name": "f", "arguments": "{"}]), "arguments: not JSON"),
        (user(tool_calls=[{"name": "f", "arguments": "[]"}]), "expected a JSON object"),
    ],
)
def test_errors_name_message_and_field(raw: Any, message: str) -> None:
    with pytest.raises(DataError, match=message.replace("[", r"\[")):
        from_row({"messages": raw})


def test_row_without_messages() -> None:
    with pytest.raises(DataError, match="messages: missing, found only 'text'"):
        from_row({"text": "x"})


SCHEMAS = [{"type": "function", "function": {"name": "f", "description": "é"}}]


def test_tools_have_one_text() -> None:
    canonical = '[{"type": "function", "function": {"name": "f", "description": "é"}}]'
    for raw in (SCHEMAS, json.dumps(SCHEMAS), json.dumps(SCHEMAS, indent=2), canonical):
        assert parse_tools(raw) == canonical
    for raw in (None, "", [], "[]"):
        assert parse_tools(raw) == ""
    # Keys keep the order of their author, which templates show.
    assert parse_tools([{"name": "f", "a": 1}]) == '[{"name": "f", "a": 1}]'


@pytest.mark.parametrize("raw", [3, {"a": 1}, "3", "{", [3], [{}], [{"function": {"name": ""}}]])
def test_tools_of_another_shape(raw: Any) -> None:
    with pytest.raises(DataError, match=r"^tools: "):
        parse_tools(raw)
    with pytest.raises(DataError, match=r"^tools: "):
        from_row({"messages": [{"role": "user", "content": "u"}], "tools": raw})


def test_optional_columns() -> None:
    named = replace(PLAIN, tools=parse_tools(SCHEMAS), model="gpt-4")
    assert not any(optional_columns([PLAIN]).values())
    none = {"tool_calls": False, "names": False, "tools": False, "model": False, "reasoning": False}
    assert optional_columns([PLAIN, named]) == none | {"tools": True, "model": True}
    assert from_row(to_row(named, **optional_columns([named]))) == named
    answered = replace(PLAIN, messages=(*PLAIN.messages, Message("tool", "r", name="f")))
    assert optional_columns([answered]) == none | {"names": True}
    assert from_row(to_row(answered, names=True)) == answered
    assert set(to_row(PLAIN)) == {"id", "source", "task", "messages"}


def test_place_is_not_what_a_conversation_is() -> None:
    assert replace(PLAIN, where="a:1") == PLAIN
    assert hash(replace(PLAIN, where="a:1")) == hash(PLAIN)


@pytest.mark.parametrize("field", ["id", "source", "task", "model"])
@pytest.mark.parametrize(
    ("value", "text"),
    [(["x", 1], '["x", 1]'), ({"é": 1}, '{"é": 1}'), (12.0, "12"), (0, "0"), (True, "true")],
)
def test_metadata_of_any_type_become_text(field: str, value: Any, text: str) -> None:
    row = {"messages": [{"role": "user", "content": "u"}], field: value}
    assert getattr(from_row(row), field) == text


def test_reasoning_has_a_column_of_its_own() -> None:
    thinking = Conversation.create(
        [Message("user", "q"), Message("assistant", "", True, reasoning="why")]
    )
    columns = optional_columns([PLAIN, thinking])
    assert columns["reasoning"]
    assert [m["reasoning_content"] for m in to_row(thinking, **columns)["messages"]] == [
        None,
        "why",
    ]
    assert from_row(to_row(thinking, **columns)) == thinking
    # Nothing is lost where nobody asks for the column.
    assert from_row(to_row(thinking)) == thinking
    pytest.importorskip("datasets")
    rows = to_dataset([PLAIN, thinking])
    assert [from_row(row) for row in rows] == [PLAIN, thinking]


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"role": "user", "content": "q", "reasoning_content": "r"}, "on a user turn"),
        ({"role": "assistant", "content": "a", "reasoning_content": ["r"]}, "found list"),
    ],
)
def test_reasoning_is_text_of_the_assistant(message: dict[str, Any], error: str) -> None:
    with pytest.raises(DataError, match=f"message 0: reasoning_content: {error}"):
        from_row({"messages": [message]})
