from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.conversation import Conversation, Message, ToolCall
from dataset_builders.errors import MaskError
from dataset_builders.formats.calls_as_text import calls_as_text
from dataset_builders.masks.chat import ChatRenderer
from dataset_builders.sources.loading import SourceSpec, fingerprint, load_source

SCHEMA = {"type": "function", "function": {"name": "f", "description": "é {}"}}
CALLS = (ToolCall("f", '{"x": "é"}', "c1"), ToolCall("g", "{}", "c2"))
CONVERSATION = Conversation.create(
    [
        Message("system", "s"),
        Message("user", "q"),
        Message("assistant", "look", trained=True, tool_calls=CALLS),
        Message("tool", "1", tool_call_id="c1"),
        Message("tool", "2", tool_call_id="c2"),
        Message("assistant", "", trained=False, tool_calls=CALLS[:1]),
        Message("tool", "3", tool_call_id="c1"),
        Message("user", "more"),
        Message("assistant", "done", trained=True),
    ],
    tools=json.dumps([SCHEMA]),
)


def test_every_part_is_there_and_can_be_read_back() -> None:
    found = calls_as_text(CONVERSATION)
    assert [(m.role, m.trained) for m in found.messages] == [
        ("system", False),
        ("user", False),
        ("assistant", True),
        ("user", False),
        ("assistant", False),
        ("user", False),
        ("assistant", True),
    ]
    assert found.tools == ""
    assert not any(m.tool_calls or m.tool_call_id for m in found.messages)
    system = found.messages[0].content
    assert system.startswith("s\n\n")
    (listed,) = re.findall("<tools>\n(.*)\n</tools>", system)
    assert json.loads(listed) == SCHEMA
    called = re.findall("<tool_call>\n(.*)\n</tool_call>", found.messages[2].content)
    assert [json.loads(text) for text in called] == [
        {"name": call.name, "arguments": json.loads(call.arguments)} for call in CALLS
    ]
    assert found.messages[2].content.startswith("look\n\n<tool_call>")
    results = re.findall("<tool_response>\n(.*)\n</tool_response>", found.messages[3].content)
    assert results == ["1", "2"]
    assert found.messages[5].content.endswith("</tool_response>\n\nmore")
    assert calls_as_text(found) == found


def test_a_template_without_tools_renders_it(llama2_tokenizer: Any) -> None:
    renderer = ChatRenderer(llama2_tokenizer)
    with pytest.raises(MaskError):
        renderer.render(CONVERSATION)
    rendered = renderer.render(calls_as_text(CONVERSATION))
    trained = [rendered.text[start:end] for start, end in rendered.spans]
    assert len(trained) == 2
    assert '<tool_call>\n{"name": "f", "arguments": {"x": "é"}}\n</tool_call>' in trained[0]


def test_source_setting(tmp_path: Path) -> None:
    call = {"function": {"name": "f", "arguments": {"x": 1}}}
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "r"},
        {"role": "assistant", "content": "a"},
    ]
    plain = {"messages": [turns[0], turns[3]]}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"messages": turns, "tools": [SCHEMA]}) + f"\n{json.dumps(plain)}\n")
    as_it_is = SourceSpec(str(path), "messages")
    as_text = SourceSpec(str(path), "messages", calls_as_text=True)
    rewritten, untouched = (result := load_source(as_text)).conversations
    original, same = load_source(as_it_is).conversations
    assert rewritten == calls_as_text(original) != original
    assert untouched == same
    assert rewritten.where == "a.jsonl:1"
    assert result.report.changed == {"calls_as_text": 3}
    assert fingerprint(as_text) != fingerprint(as_it_is)
