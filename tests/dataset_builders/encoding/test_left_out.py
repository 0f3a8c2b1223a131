"""Words of trained turns that a chat template leaves out: counted, sampled and warned of."""

from __future__ import annotations

import copy
from dataclasses import asdict
from typing import Any

import pytest

from agenttuning_plugin.reports.mask import inspect
from dataset_builders.conversation import Conversation, Message, ToolCall
from dataset_builders.encoding.encoder import Encoder
from dataset_builders.encoding.token_rows import TokenReport
from dataset_builders.mixing.losses import loss_warnings

# Thoughts are shown after the last user turn only, words beside a call never.
TEMPLATE = """\
{%- if tools %}<|im_start|>system
{{ tools | tojson }}<|im_end|>
{% endif %}
{%- set ns = namespace(last=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}<|im_start|>{{ m.role }}
{% if m.reasoning_content and loop.index0 > ns.last %}<think>
{{ m.reasoning_content }}
</think>
{% endif %}
{%- if m.tool_calls %}{% for c in m.tool_calls %}CALL {{ c.function.name }} {{ c.function.arguments | tojson }}
{%- endfor %}{% else %}{{ m.content }}{% endif %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""  # noqa: E501
TOOLS = '[{"type": "function", "function": {"name": "seek", "parameters": {}}}]'
CALL = ToolCall("seek", '{"name": "Ann"}', "c1")


@pytest.fixture(scope="module")
def tokenizer(small_tokenizer: Any) -> Any:
    tokenizer = copy.deepcopy(small_tokenizer)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def thinks(reasoning: str, content: str, *calls: ToolCall) -> Message:
    return Message("assistant", content, True, calls, reasoning=reasoning)


TALK = Conversation.create(
    [
        *(Message("user", "q1"), thinks("why1", "a1")),
        *(Message("user", "q2"), thinks("why2", "I look.", CALL)),
        *(Message("tool", "r", tool_call_id="c1"), thinks("why3", "a2")),
    ],
    id="talk",
    source="test",
    tools=TOOLS,
)


@pytest.mark.parametrize("turns", [1, 40])
def test_what_a_template_leaves_out_is_counted_and_sampled(tokenizer: Any, turns: int) -> None:
    encoder = Encoder(tokenizer, max_length=4096)
    report = TokenReport()
    rows = list(encoder.encode([TALK] * turns, report))
    assert len(rows) == report.kept == turns
    assert (report.thoughts_left_out, report.words_left_out) == (turns, turns)
    assert report.samples["thoughts_left_out"][0] == "test/talk: message 1: 'why1'"
    assert report.samples["words_left_out"][0] == "test/talk: message 3: 'I look.'"
    assert not report.dropped
    assert "turns without their reasoning" in report.summary()
    thoughts, words = loss_warnings({"agent": {"tokens": asdict(report)}})
    assert f"agent: {turns:,} of {3 * turns:,} (33%) trained turns lose their reasoning" in thoughts
    assert "one record per turn" in thoughts
    assert "calls_as_text" in words


def test_the_rest_of_the_turn_is_trained(tokenizer: Any) -> None:
    found = inspect(TALK, tokenizer)
    text = found.rendered.text
    assert [text[span.start : span.end] for span in found.rendered.spans] == [
        "a1<|im_end|>",
        '<think>\nwhy2\n</think>\nCALL seek {"name": "Ann"}<|im_end|>',
        "<think>\nwhy3\n</think>\na2<|im_end|>",
    ]
    assert found.as_json()["left_out"] == [[1, "reasoning"], [3, "words"]]
    assert [line.partition(":")[0] for line in found.warnings()] == ["talk", "talk"]


def test_reasoning_as_text_is_counted(small_tokenizer: Any) -> None:
    encoder = Encoder(small_tokenizer, max_length=4096)
    report = TokenReport()
    talk = Conversation.create([Message("user", "q"), thinks("why", "a")])
    (row,) = encoder.encode([talk], report)
    assert report.reasoning_as_text == 1
    trained = small_tokenizer.decode(row.input_ids[row.labels >= 0])
    assert trained == "<think>\nwhy\n</think>\n\na<|im_end|>"


def test_a_call_that_is_left_out_refuses_the_conversation(small_tokenizer: Any) -> None:
    tokenizer = copy.deepcopy(small_tokenizer)
    tokenizer.chat_template = TEMPLATE.replace("in m.tool_calls", "in m.tool_calls[:1]")
    other = ToolCall("seek", '{"name": "Eve"}', "c2")
    talk = Conversation.create(
        [
            *(Message("user", "q"), Message("assistant", "", True, (CALL, other))),
            *(Message("tool", "r", tool_call_id="c1"), Message("tool", "s", tool_call_id="c2")),
            Message("assistant", "a", True),
        ],
        tools=TOOLS,
    )
    report = TokenReport()
    assert not list(Encoder(tokenizer, max_length=4096).encode([talk], report))
    assert report.dropped == {"left_out": 1}
