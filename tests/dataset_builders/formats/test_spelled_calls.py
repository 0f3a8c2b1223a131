"""Reading tool calls from the text of a turn."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dataset_builders.conversation import Conversation, Message, ToolCall
from dataset_builders.errors import ConfigError
from dataset_builders.formats import spelled_calls
from dataset_builders.formats.calls_as_text import calls_as_text
from dataset_builders.formats.spelled_calls import (
    SpelledTurn,
    declared_spellings,
    hermes_spelling,
    read_spelled_calls,
)
from tests.support.call_shapes import SHAPES, TOOLS

pytest.importorskip("transformers.utils.chat_parsing")


def hermes(name: str = "seek", **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def found(turn: SpelledTurn) -> list[tuple[str, Any]]:
    return [(call.name, json.loads(call.arguments)) for call in turn.calls]


ANN = [("seek", {"text": "Ann"})]

# How servers without a tool parser return the families' turns; special tokens may be missing.
FAMILIES = {
    "Hermes": '<tool_call>\n{"name": "seek", "arguments": {"text": "Ann"}}\n</tool_call>',
    "Hermes, not closed": '<tool_call>{"name": "seek", "arguments": {"text": "Ann"}}',
    "Hermes, arguments as text": (
        '<tool_call>{"name": "seek", "arguments": "{\\"text\\": \\"Ann\\"}"}</tool_call>'
    ),
    "Qwen3-Coder": (
        "<tool_call>\n<function=seek>\n<parameter=text>\nAnn\n</parameter>\n</function>\n"
        "</tool_call>"
    ),
    "GLM": "<tool_call>seek\n<arg_key>text</arg_key>\n<arg_value>Ann</arg_value>\n</tool_call>",
    "Mistral": '[TOOL_CALLS] [{"name": "seek", "arguments": {"text": "Ann"}, "id": "abcdefghi"}]',
    "Mistral 2025": '[TOOL_CALLS]seek[ARGS]{"text": "Ann"}',
    "Mistral 2025, with an id": '[TOOL_CALLS]seek[CALL_ID]abc[ARGS]{"text": "Ann"}</s>',
    "Jamba": '<tool_calls>[\n{"name": "seek", "arguments": {"text": "Ann"}}\n]</tool_calls>',
    "Gemma 4": '<|tool_call>call:seek{text:<|"|>Ann<|"|>}<tool_call|>',
    "gpt-oss": ' to=functions.seek<|channel|>commentary json<|message|>{"text": "Ann"}<|call|>',
    "gpt-oss, channel first": (
        "<|channel|>commentary to=functions.seek <|constrain|>json<|message|>"
        '{"text": "Ann"}<|call|>'
    ),
    "Llama 3": '{"name": "seek", "parameters": {"text": "Ann"}}',
    "Llama 3, other key": '<|python_tag|>{"name": "seek", "arguments": {"text": "Ann"}}<|eom_id|>',
    "Llama 3, with a type": '{"type": "function", "name": "seek", "parameters": {"text": "Ann"}}',
    "Muse": (
        ' to=seek<|message|><atem:function_calls>\n<atem:invoke name="seek">\n'
        '<atem:parameter name="text">Ann</atem:parameter>\n</atem:invoke>\n</atem:function_calls>'
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_calls_of_an_unknown_model_are_read(family: str) -> None:
    turn = read_spelled_calls(FAMILIES[family], TOOLS)
    assert (found(turn), turn.malformed, turn.text.strip()) == (ANN, (), "")


def test_ids_are_kept() -> None:
    (call,) = read_spelled_calls(FAMILIES["Mistral"]).calls
    assert call == ToolCall("seek", '{"text": "Ann"}', "abcdefghi")


@pytest.mark.parametrize("text", ["", "It is 3.", 'A "parameters" key', "{}", '{"name": "Ann"}'])
def test_a_turn_without_calls_is_unchanged(text: str) -> None:
    assert read_spelled_calls(text, TOOLS) == SpelledTurn(text)


@pytest.mark.parametrize("family", ["Hermes", "Qwen3-Coder", "GLM", "Gemma 4", "Muse"])
def test_calls_in_the_middle_of_text(family: str) -> None:
    call = FAMILIES[family]
    turn = read_spelled_calls(f"First.\n{call}\nThen.\n{call}\nLast.", TOOLS)
    assert (found(turn), turn.malformed) == (ANN + ANN, ())
    assert turn.text.split() == ["First.", "Then.", "Last."]


def test_ten_calls() -> None:
    turn = read_spelled_calls("\n".join(hermes(count=n) for n in range(10)))
    assert found(turn) == [("seek", {"count": n}) for n in range(10)]


@pytest.mark.parametrize(
    "bad",
    [
        '<tool_call>\n{"name": "seek", "arguments": {"text": "Ann}\n</tool_call>',
        '<tool_call>{"name": "seek", "arguments": {"text": NaN}}</tool_call>',
        '<tool_call>{"name": "seek", "arguments": ["Ann"]}</tool_call>',
        '<tool_call>{"name": "", "arguments": {}}</tool_call>',
        '<tool_call>{"arguments": {}}</tool_call>',
        "<tool_call>{}</tool_call>",
        '<tool_call>\n{"name": "seek", "argu',
        "<tool_call>\n<function=seek>\n<parameter=text>\nAnn\n</parameter>\n<param",
        "<tool_call>seek\n<arg_key>text</arg_key>\n<arg_value>An",
        '<atem:invoke name="seek">\n<atem:parameter name="text">An',
        "<tool_call>\nno JSON at all\n</tool_call>",
        '[TOOL_CALLS] [{"name": "seek"',
        "[TOOL_CALLS]",
        '{"name": "seek", "parameters": {"text": "Ann"}',
        '<|tool_call>call:seek{text:<|"|>Ann}<tool_call|>',
        "<tool_calls>[1]</tool_calls>",
        '<atem:function_calls>\n<atem:invoke name="">',
    ],
)
def test_malformed_calls_are_kept_as_spelled(bad: str) -> None:
    turn = read_spelled_calls(f"So:\n{bad}", TOOLS)
    assert (turn.calls, turn.malformed, turn.text.strip()) == ((), (bad,), "So:")


def test_a_malformed_call_between_others() -> None:
    bad = "<tool_call>\n{'name': 'seek'}\n</tool_call>"
    turn = read_spelled_calls(f"{hermes(text='Ann')}\n{bad}\n{hermes(count=2)}")
    assert found(turn) == [*ANN, ("seek", {"count": 2})]
    assert turn.malformed == (bad,)


def test_drafts_within_a_thought_are_no_calls() -> None:
    draft = hermes(text="Ben")
    thought = f"<think>\nPerhaps\n{draft}\n</think>\n\n"
    turn = read_spelled_calls(f"{thought}Yes.\n{hermes(text='Ann')}")
    assert found(turn) == ANN
    assert turn.text == f"{thought}Yes.\n"
    opened = read_spelled_calls(f"Perhaps\n{draft}\n</think>\n\nYes.")
    assert (opened.calls, opened.malformed) == ((), ())
    assert read_spelled_calls(f"<think>\n{draft}") == SpelledTurn(f"<think>\n{draft}")


def test_raw_values_get_the_types_of_the_schema() -> None:
    values = {"text": "3", "count": "3", "share": "0.5", "flag": "false", "items": '["a", 1]'}
    parameters = "".join(f"<parameter={k}>\n{v}\n</parameter>\n" for k, v in values.items())
    text = f"<tool_call>\n<function=seek>\n{parameters}</function>\n</tool_call>"
    typed = {"text": "3", "count": 3, "share": 0.5, "flag": False, "items": ["a", 1]}
    assert found(read_spelled_calls(text, TOOLS)) == [("seek", typed)]
    assert found(read_spelled_calls(text)) == [("seek", values)]


def test_what_calls_as_text_writes_is_read_back() -> None:
    for shape, said in SHAPES.items():
        written = calls_as_text(Conversation.create((Message("user", "Who?"), said), tools=TOOLS))
        turn = hermes_spelling().read(written.messages[-1].content, TOOLS)
        expected = [(call.name, json.loads(call.arguments)) for call in said.tool_calls]
        assert (found(turn), turn.malformed) == (expected, ()), shape
        assert turn.text.strip() == said.content


def test_a_mark_within_an_argument_is_an_ambiguity() -> None:
    """The limit of Hermes's spelling: no reader can tell this end from the call's."""
    turn = read_spelled_calls(hermes(text="write </tool_call>"))
    assert turn.calls == ()
    assert turn.malformed


@pytest.mark.parametrize(
    "text",
    [
        '"arguments"' + "\n" * 20_000,
        "<tool_call>" + " \n" * 10_000,
        "<tool_call>\n<function=seek>" + "<parameter=a>\n" * 5_000,
    ],
    ids=["line breaks", "blanks", "tags"],
)
def test_a_degenerate_turn_is_read(text: str) -> None:
    """Patterns of quadratic time would take minutes; the tests' time limit ends them."""
    assert read_spelled_calls(text, TOOLS).calls == ()


def test_an_older_transformers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.utils.chat_parsing.response_parser as parser

    def old(text: str, template: object, *, prefix: str | None = None) -> dict[str, Any]:
        raise AssertionError

    declared_spellings.cache_clear()
    monkeypatch.setattr(parser, "parse_response", old)
    with pytest.raises(ConfigError, match=r"found transformers .*, expected 5\.15 or newer"):
        spelled_calls.read_spelled_calls(hermes())
    assert read_spelled_calls("No call.").text == "No call."


@pytest.fixture(autouse=True)
def _afresh() -> Any:
    yield
    declared_spellings.cache_clear()
