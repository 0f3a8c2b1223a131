"""What a chat template writes for a turn's tool calls is read back as the same calls."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dataset_builders.conversation import Message, ToolCall
from dataset_builders.errors import ConfigError, MaskError
from dataset_builders.masks import call_spelling
from dataset_builders.masks.call_spelling import find_call_spelling
from dataset_builders.masks.chat import ChatRenderer
from tests.support.call_shapes import SHAPES, TOOLS, conversation
from tests.support.every_template import PARTS, find_templates, speaking
from tests.support.template_outcomes import (
    CALLS_FIRST,
    GPT_OSS,
    NO_CALLS,
    NO_END_OF_CALL,
    NO_REASONING,
    NO_TOOLS,
    ONE_CALL,
    UNENDED,
    names,
)

pytest.importorskip("transformers.utils.chat_parsing")

TEMPLATES = find_templates()

# The spelling that reads each family's calls; all others are Hermes's.
SPELLINGS = {
    "function_xml": ("trl/qwen3_5", "trl/qwen3_6", "trl/qwen3_8", "trl/nemotron_3"),
    "llama3": ("axolotl/llama3_2_vision", "axolotl/llama4", "trl/llama3_1", "trl/llama3_2"),
    "mistral": ("axolotl/mistral_v2v3", "axolotl/mistral_v3_tekken"),
    "gemma4": ("axolotl/gemma4", "trl/gemma4", "trl/diffusion_gemma"),
    "gpt_oss": ("trl/gptoss",),
    "glm": ("trl/glm4moe",),
    "jamba": ("axolotl/jamba",),
    "invoke_xml": ("trl/muse_glimmer",),
    "lfm2": ("trl/lfm2",),
}

# Write texts in quotes without escaping the quotes within.
UNESCAPED = names("trl/lfm2_2_5 trl/lfm2_2_5_v2")
# LFM2's Python-like calls: the content parser came with transformers 5.24.
PYTHON_CALLS = names("trl/lfm2_2_5_vl trl/lfm2_v2 trl/lfm2_v2_training")

SEVERAL = ("two calls", "three calls", "words and two calls")
# Why and where a turn is not read back: it cannot be rendered, or not be read.
EXCEPTIONS: list[tuple[list[str], tuple[str, ...], str]] = [
    (ONE_CALL, SEVERAL, "template"),
    (GPT_OSS, SEVERAL, "left_out"),  # It writes the first call only.
    (GPT_OSS, ("reasoning, words and a call",), "template"),  # Either thoughts or words.
    # It writes the words behind the tool's answer.
    (
        CALLS_FIRST,
        ("words and a call", "words and two calls", "reasoning, words and a call"),
        "template",
    ),
    (NO_REASONING, ("reasoning and a call", "reasoning, words and a call"), "reasoning"),
    # It writes null as None, which is no JSON.
    ([*CALLS_FIRST, "trl/gemma4_v2"], ("null",), "malformed"),
    (["trl/gemma4_v5", "trl/diffusion_gemma", "trl/diffusion_gemma_training"], ("null",), "read"),
]


def speaks_python_calls() -> bool:
    from transformers.utils.chat_parsing.content_parsers import CONTENT_PARSERS

    return "python-call-list" in CONTENT_PARSERS


def spelling_of(name: str) -> str | None:
    """Name of the spelling that is to be found for a template."""
    if name in (*NO_CALLS, *NO_END_OF_CALL, *NO_TOOLS, *UNESCAPED):
        return None
    if name in PYTHON_CALLS and not speaks_python_calls():
        return None
    found = [spelling for spelling, starts in SPELLINGS.items() if name.startswith(starts)]
    return found[0] if found else "hermes"


def contents(calls: tuple[ToolCall, ...]) -> list[tuple[str, Any]]:
    return [(call.name, json.loads(call.arguments)) for call in calls]


def outcome(renderer: ChatRenderer, spelling: Any, said: Message) -> str:
    """ "read", "malformed", or the reason why the turn cannot be rendered."""
    try:
        rendered = renderer.render(conversation(said))
    except MaskError as error:
        return error.reason
    span = rendered.spans[0]
    text = rendered.text[span.start : span.end]
    end = max((each for each in renderer.end_tokens if text.endswith(each)), key=len)
    turn = spelling.read(text.removesuffix(end), TOOLS)
    if turn.malformed:
        return "malformed"
    assert contents(turn.calls) == contents(said.tool_calls)
    # What is left is text of the turn and of the template.
    assert all(call.name not in turn.text for call in said.tool_calls)
    return "read"


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name not in UNENDED])
def test_calls_are_read_back(small_tokenizer: Any, name: str) -> None:
    tokenizer, ends = speaking(small_tokenizer, TEMPLATES[name], name in PARTS)
    renderer = ChatRenderer(tokenizer, ends)
    spelling = find_call_spelling(tokenizer, renderer)
    assert (spelling and spelling.name) == spelling_of(name)
    if spelling is None:
        return
    expected = dict.fromkeys(SHAPES, "read")
    for templates, shapes, found in EXCEPTIONS:
        if name in templates:
            expected |= dict.fromkeys(shapes, found)
    assert {shape: outcome(renderer, spelling, said) for shape, said in SHAPES.items()} == expected


def test_a_tokenizers_own_response_template_comes_first(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer(OWN)
    renderer = ChatRenderer(tokenizer)
    assert find_call_spelling(tokenizer, renderer) is None
    field = {
        "open_pattern": r"CALL (?P<name>\S+) ",
        # As some families declare it: the end of the turn is part of the call.
        "close_pattern": r" DONE<\|im_end\|>",
        "repeats": True,
        "content": "json",
        "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
    }
    tokenizer.response_template = {
        "start_anchor": "<|im_start|>assistant\n",
        "fields": {"tool_calls": field, "content": {}},
    }
    spelling = find_call_spelling(tokenizer, renderer)
    assert spelling is not None
    assert spelling.name == "tokenizer"
    turn = spelling.read('So. CALL seek {"text": "Ann"} DONE')
    assert (turn.text, contents(turn.calls)) == ("So. ", [("seek", {"text": "Ann"})])
    assert spelling.read("So.").text == "So."


def test_a_wrong_response_template_is_not_used(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer(OWN)
    # It takes every value for text, so numbers would come back as texts.
    field = {
        "open_pattern": r"CALL (?P<name>\S+) ",
        "close_pattern": " DONE",
        "content": "text",
        "transform": {"type": "function", "function": {"name": "{name}", "arguments": {"a": "b"}}},
    }
    tokenizer.response_template = {"start_anchor": "x", "fields": {"tool_calls": field}}
    assert find_call_spelling(tokenizer, ChatRenderer(tokenizer)) is None


OWN = (
    "{%- if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{%- for call in m.tool_calls or [] %}CALL {{ call.function.name }} "
    "{{ call.function.arguments | tojson }} DONE{% endfor %}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_trls_response_templates_are_the_last_resort(
    small_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl.chat_template_utils")
    monkeypatch.setattr(call_spelling, "declared_spellings", tuple)
    for name in ("trl/qwen3", "trl/llama3_1"):  # The latter's expects the end token.
        tokenizer, ends = speaking(small_tokenizer, TEMPLATES[name], parts=False)
        spelling = find_call_spelling(tokenizer, ChatRenderer(tokenizer, ends))
        assert spelling is not None
        assert spelling.name in ("trl/qwen3", "trl/llama3")
        assert outcome(ChatRenderer(tokenizer, ends), spelling, SHAPES["nested"]) == "read"


def test_trl_reads_the_same_calls(small_tokenizer: Any) -> None:
    """TRL declares response templates for some families: an independent reading."""
    utils = pytest.importorskip("trl.chat_template_utils")
    compared = 0
    for name, template in TEMPLATES.items():
        tokenizer, ends = speaking(small_tokenizer, template, name in PARTS)
        tokenizer.response_template = None
        try:
            utils.add_response_schema(tokenizer)
            renderer = ChatRenderer(tokenizer, ends)
        except (ValueError, ConfigError):
            continue
        own = tokenizer.response_template
        del tokenizer.response_template
        spelling = find_call_spelling(tokenizer, renderer)
        if spelling is None or "tool_calls" not in own["fields"]:
            continue
        for shape in ("one call", "two calls", "nested", "double quotes", "words and a call"):
            try:
                rendered = renderer.render(conversation(SHAPES[shape]))
            except MaskError:
                continue
            start, stop = rendered.spans[0]
            text, prompt = rendered.text[start:stop], rendered.text[:start]
            theirs = tokenizer.parse_response(text, own, prefix=prompt, tools=json.loads(TOOLS))
            calls = [call["function"] for call in theirs["tool_calls"]]
            ours = spelling.read(text, TOOLS).calls
            assert contents(ours) == [(call["name"], call["arguments"]) for call in calls], name
            compared += 1
    assert compared >= 40
