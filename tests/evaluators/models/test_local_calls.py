"""A local model is offered tools, and its calls are read."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
pytest.importorskip("transformers.utils.chat_parsing")

from dataset_builders.conversation import Conversation, Message, ToolCall
from dataset_builders.encoding.encoder import Encoder
from dataset_builders.encoding.token_rows import IGNORE_INDEX, TokenReport
from dataset_builders.endpoints.answer import Answer
from dataset_builders.formats.calls_as_text import calls_as_text
from dataset_builders.masks.chat import ChatRenderer
from evaluators.models.chat_model import LocalModel
from evaluators.models.eval_mode import evaluation_mode
from evaluators.models.interface import Decoding
from evaluators.models.local_calls import LocalCalls
from tests.support.bigram_models import saying
from tests.support.call_shapes import IDS, SHAPES, TOOLS, conversation
from tests.support.every_template import PARTS, find_templates, speaking
from tests.support.hermes_template import HERMES, MARKS

TEMPLATES = find_templates()

FAMILIES = {
    "trl/qwen3": "words and a call",
    "trl/qwen2_5": "three calls",
    "trl/qwen3_5_think": "reasoning, words and a call",
    "trl/qwen3_5_nothink": "words and a call",
    "trl/llama3_1": "nested",
    "trl/gptoss": "SQL",
    "trl/glm4moe": "reasoning, words and a call",
    "axolotl/gemma4": "one call",
    "axolotl/mistral_v3_tekken": "two calls",
    "axolotl/jamba": "words and a call",
    "axolotl/llama4": "words and a call",
    "axolotl/exaone4": "words and a call",
}


def tokenizer_of(small_tokenizer: Any, name: str) -> tuple[Any, tuple[str, ...]]:
    if name not in TEMPLATES:
        pytest.skip(f"{name} is not installed")
    return speaking(small_tokenizer, TEMPLATES[name], name in PARTS)


def answer_of(tokenizer: Any, ends: tuple[str, ...], text: str, limit: int = 99) -> Answer:
    """What is read of a text that a model writes when it is offered tools."""
    end = ends[-1] if ends else tokenizer.eos_token
    subject = saying(tokenizer, text, end)
    with evaluation_mode(subject):
        local = LocalModel(subject.tokens(), tokenizer, ends)
        (said,) = local.chat([[Message("user", "Who?")]], Decoding(limit), [TOOLS])
    assert isinstance(said, Answer)
    return said


def contents(calls: tuple[ToolCall, ...]) -> list[tuple[str, Any]]:
    return [(call.name, json.loads(call.arguments)) for call in calls]


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_row_trains_is_read_when_it_is_generated(small_tokenizer: Any, name: str) -> None:
    tokenizer, ends = tokenizer_of(small_tokenizer, name)
    expected = SHAPES[FAMILIES[name]]
    rendered = ChatRenderer(tokenizer, ends).render(conversation(expected))
    span = rendered.spans[0]
    text = rendered.text[span.start : span.end]
    end = max((e for e in (tokenizer.eos_token, *ends) if text.endswith(e)), key=len)
    said = answer_of(tokenizer, (*ends, end), text.removesuffix(end))
    assert contents(said.tool_calls) == contents(expected.tool_calls)
    assert (said.malformed, said, said.reasoning) == (
        (),
        expected.content,
        expected.reasoning or "",
    )


@pytest.fixture
def hermes(make_tokenizer: Callable[..., Any]) -> Any:
    """A tokenizer of Hermes's spelling, whose tags are special tokens."""
    tokenizer = make_tokenizer(HERMES)
    tokenizer.add_tokens(MARKS, special_tokens=True)
    return tokenizer


CALL = '{"name": "seek", "arguments": {"text": "Ann"}}'


def test_a_call_in_the_middle_of_text(hermes: Any) -> None:
    said = answer_of(hermes, (), f"First<tool_call>{CALL}</tool_call>then.")
    assert (said, contents(said.tool_calls)) == ("Firstthen.", [("seek", {"text": "Ann"})])


def test_a_malformed_call_is_kept_as_spelled(hermes: Any) -> None:
    said = answer_of(hermes, (), "So.<tool_call>{'name': 'seek'}</tool_call>")
    assert (said, said.tool_calls) == ("So.", ())
    assert said.malformed == ("<tool_call>{'name': 'seek'}</tool_call>",)


def test_reasoning_alone(hermes: Any) -> None:
    said = answer_of(hermes, (), f"<think>Perhaps {CALL}</think>")
    assert (said, said.tool_calls, said.malformed) == ("", (), ())
    assert said.reasoning == f"Perhaps {CALL}"


def test_a_call_cut_at_the_token_limit(hermes: Any) -> None:
    said = answer_of(hermes, (), '<tool_call>{"name": "seek", </tool_call>', limit=2)
    assert (said.cut, said.tool_calls) == (True, ())
    assert said.malformed == ('<tool_call>{"name": "seek",',)


def test_a_text_without_calls(hermes: Any) -> None:
    said = answer_of(hermes, (), "It is 3.<s>")
    assert (said, said.tool_calls, said.malformed, said.cut) == ("It is 3.", (), (), False)


def test_without_tools_a_call_is_text(hermes: Any) -> None:
    subject = saying(hermes, f"<tool_call>{CALL}</tool_call>", "<|im_end|>")
    with evaluation_mode(subject):
        local = LocalModel(subject.tokens(), hermes)
        (said,) = local.chat([[Message("user", "Who?")]], Decoding(9))
        (same,) = local.chat([[Message("user", "Who?")]], Decoding(9), [""])
    assert (said, same) == (CALL, CALL)
    assert not getattr(said, "tool_calls", ())


def test_dialogues_with_and_without_tools_in_a_batch(hermes: Any) -> None:
    subject = saying(hermes, f"<tool_call>{CALL}</tool_call>", "<|im_end|>")
    with evaluation_mode(subject):
        local = LocalModel(subject.tokens(), hermes)
        dialogues = [[Message("user", "Who?")]] * 3
        said = local.chat(dialogues, Decoding(9), ["", TOOLS, ""])
    assert [len(getattr(each, "tool_calls", ())) for each in said] == [0, 1, 0]
    assert local.prompt_ids(dialogues[0], TOOLS) != local.prompt_ids(dialogues[0])


def test_a_template_without_tools_is_offered_them_as_text(
    make_tokenizer: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = make_tokenizer()
    tokenizer.name_or_path = "without-tools"  # The line is written once for each.
    with caplog.at_level(logging.WARNING):
        said = answer_of(tokenizer, (), f"So.\n<tool_call>\n{CALL}\n</tool_call>")
    assert (said, contents(said.tool_calls)) == ("So.", [("seek", {"text": "Ann"})])
    assert "tools are shown as text" in caplog.text
    assert "calls_as_text: true" in caplog.text


def test_tools_as_text_are_shown_as_in_training_rows(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer()
    subject = saying(tokenizer, "So.", "<|im_end|>")
    row = conversation(SHAPES["two calls"])
    trained = ChatRenderer(tokenizer).render(calls_as_text(row)).text
    local = LocalModel(subject.tokens(), tokenizer)
    prompt = tokenizer.decode(local.prompt_ids(row.messages[:-1], TOOLS))
    assert trained.startswith(prompt)
    assert "<tool_response>" in prompt


def test_the_models_own_end_tokens_end_a_call(small_tokenizer: Any) -> None:
    """Llama 3.1 ends a call with another token than a turn, which only its config names."""
    tokenizer, _ = tokenizer_of(small_tokenizer, "trl/llama3_1")
    tokenizer.add_tokens(["<|eom_id|>", "<|python_tag|>"], special_tokens=True)
    call = '{"name": "seek", "parameters": {"text": "Ann"}}'
    subject = saying(tokenizer, f"<|python_tag|>{call}", "<|eom_id|>")
    ends = ["<|eot_id|>", "<|eom_id|>"]
    subject.model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(ends)
    with evaluation_mode(subject):
        local = LocalModel(subject.tokens(), tokenizer)
        (said,) = local.chat([[Message("user", "Who?")]], Decoding(20), [TOOLS])
    assert isinstance(said, Answer)
    assert (said, said.cut) == ("", False)
    assert contents(said.tool_calls) == [("seek", {"text": "Ann"})]


def test_several_calls_under_a_template_of_one_call_a_turn(small_tokenizer: Any) -> None:
    tokenizer, ends = tokenizer_of(small_tokenizer, "trl/llama3_1")
    subject = saying(tokenizer, "So.", ends[0] if ends else tokenizer.eos_token)
    local = LocalModel(subject.tokens(), tokenizer, ends)
    row = conversation(SHAPES["three calls"])
    prompt = tokenizer.decode(local.prompt_ids(row.messages[:-1], TOOLS))
    calls = SHAPES["three calls"].tool_calls
    apart = [row.messages[0]]
    for number, call in enumerate(calls):
        apart.append(Message("assistant", "", True, (call,)))
        apart.append(Message("tool", f"result {number}", tool_call_id=call.id, name=call.name))
    assert prompt == ChatRenderer(tokenizer, ends).prompt(apart, TOOLS)


def test_ids_of_any_length_under_mistrals_template(small_tokenizer: Any) -> None:
    tokenizer, ends = tokenizer_of(small_tokenizer, "axolotl/mistral_v3_tekken")
    renderer = ChatRenderer(tokenizer, ends)

    def rendered(*ids: str) -> str:
        calls = tuple(ToolCall("seek", '{"text": "Ann"}', name) for name in ids)
        results = [Message("tool", "found", tool_call_id=n) for n in ids]
        said = Message("assistant", "", True, calls)
        last = Message("assistant", "Done.", True)
        messages = (Message("user", "Who?"), said, *results, last)
        return renderer.render(Conversation.create(messages, tools=TOOLS), certify=True).text

    assert f'"{IDS[0]}"' in rendered(*IDS[:2])
    text = rendered("call_0_0", "call_0_1")
    assert "call_0" not in text
    assert text == rendered("call_0_0", "call_0_1")


@pytest.mark.parametrize("fixture", ["llama2_tokenizer", "smollm2_tokenizer"])
def test_real_tokenizers_give_back_what_they_encode(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    """A tokenizer may change blanks when it decodes: calls as text survive it."""
    tokenizer = request.getfixturevalue(fixture)
    calls = LocalCalls(tokenizer, (tokenizer.eos_token,))
    assert calls.as_text
    encoder = Encoder(tokenizer, max_length=4096)
    for shape, said in SHAPES.items():
        (row,) = encoder.encode([calls.row(conversation(said))], TokenReport())
        ids = row.input_ids[row.labels != IGNORE_INDEX].tolist()
        text = tokenizer.decode(ids[:-1])
        answer = calls.read(text, TOOLS, opened=False, cut=False)
        assert contents(answer.tool_calls) == contents(said.tool_calls), shape
        assert (answer.malformed, str(answer)) == ((), said.content)
