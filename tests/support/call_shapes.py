"""Shapes of turns with tool calls, and which chat templates cannot spell them."""

from __future__ import annotations

import json
from typing import Any

from dataset_builders.conversation import Conversation, Message, ToolCall

PROPERTIES = {
    "text": {"type": "string"},
    "count": {"type": "integer"},
    "share": {"type": "number"},
    "flag": {"type": "boolean"},
    "items": {"type": "array"},
    "deep": {"type": "object"},
    "none": {"type": "string", "nullable": True},
}


def schema(name: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": PROPERTIES, "required": []}
    for value in PROPERTIES.values():
        value.setdefault("description", "A value.")
    function = {"name": name, "description": "Does it.", "parameters": parameters}
    return {"type": "function", "function": function}


TOOLS = json.dumps([schema("seek"), schema("other-tool_2")])

IDS = ("abcdefghi", "bcdefghij", "cdefghijk")
"""Nine letters, as Mistral's templates require."""


def turn(
    *arguments: dict[str, Any], text: str = "", reasoning: str | None = None, name: str = "seek"
) -> Message:
    calls = tuple(
        ToolCall(name, json.dumps(each, ensure_ascii=False), id)
        for each, id in zip(arguments, IDS, strict=False)
    )
    return Message("assistant", text, True, calls, reasoning=reasoning)


SHAPES = {
    "no call": turn(text="It is 3."),
    "one call": turn({"text": "Ann"}),
    "two calls": turn({"text": "Ann"}, {"text": "Ben"}),
    "three calls": turn({"text": "Ann"}, {"count": 2}, {"flag": True}),
    "words and a call": turn({"text": "Ann"}, text="Let me see."),
    "words and two calls": turn({"text": "Ann"}, {"text": "Ben"}, text="Let me see."),
    "reasoning and a call": turn({"text": "Ann"}, reasoning="Who is it?"),
    "reasoning, words and a call": turn({"text": "Ann"}, text="See.", reasoning="Who is it?"),
    "another name": turn({"text": "Ann"}, name="other-tool_2"),
    "no arguments": turn({}),
    "nested": turn({"deep": {"a": {"b": [1, {"c": "d"}]}, "e": []}, "items": [[1, 2], {"f": "g"}]}),
    "text like JSON": turn({"text": '{"a": [1, 2]}'}),
    "text like a number": turn({"text": "007"}),
    "text like a literal": turn({"text": "true"}),
    "numbers": turn({"count": -12, "share": 0.25}),
    "booleans": turn({"flag": False}),
    "null": turn({"none": None}),
    "unicode": turn({"text": "naïve 東京 🙂 \u200b"}),
    "double quotes": turn({"text": 'say "hi"'}),
    "single quotes": turn({"text": "it's"}),
    "backslashes": turn({"text": r"C:\new \"x\" \u0041"}),
    "braces": turn({"text": "f() { return {}; } }} {{ {% x %}"}),
    "code": turn({"text": "def f(x):\n    if x < 3 and x > 1:\n\treturn [x]\n"}),
    "edge blanks": turn({"text": "  a  "}),
    "SQL": turn({"text": "SELECT * FROM `t` WHERE a='b' AND c=\"d\";"}),
    "tags": turn({"text": "<b>bold</b> & <i x='1'/>"}),
}


def conversation(said: Message) -> Conversation:
    """A conversation in which the turn is answered."""
    results = [
        Message("tool", f"result {i}", tool_call_id=call.id, name=call.name)
        for i, call in enumerate(said.tool_calls)
    ]
    between = results or [Message("user", "And now?")]
    return Conversation.create(
        (Message("user", "Who?"), said, *between, Message("assistant", "Done.")), tools=TOOLS
    )
