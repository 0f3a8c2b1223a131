"""Rows show each trained turn what inference shows, for every chat template at hand."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dataset_builders.conversation import Conversation, Message, ToolCall
from dataset_builders.encoding.encoder import Encoder
from dataset_builders.encoding.history_cut import keep_last_turns
from dataset_builders.encoding.token_rows import IGNORE_INDEX, TokenReport, TokenRow
from dataset_builders.encoding.turn_rows import TurnRows, View
from dataset_builders.errors import ConfigError, MaskError
from dataset_builders.masks.chat import ChatRenderer, Span
from dataset_builders.masks.template_variables import set_template_variables
from dataset_builders.row_options import RowOptions
from tests.support.every_template import PARTS, find_templates, speaking
from tests.support.template_outcomes import UNENDED
from tests.support.template_shapes import REWRITTEN, SHAPES, TOOLS
from tests.support.thinking_template import DROPS_REASONING

pytest.importorskip("transformers")

TEMPLATES = find_templates()

# Drop thoughts of the past, open or close a thought in the prompt alone, or move the tools.
REWRITING = {
    *("axolotl/gemma4", "axolotl/gemma4_unified", "axolotl/mistral_v2v3"),
    *("axolotl/mistral_v3_tekken", "axolotl/qwen3", "axolotl/qwen3_5"),
    *("trl/diffusion_gemma", "trl/diffusion_gemma_training", "trl/gemma4", "trl/gemma4_v3"),
    *("trl/gemma4_v4", "trl/gemma4_v5", "trl/glm4moe_training"),
    *("trl/lfm2_2_5", "trl/lfm2_2_5_v2", "trl/lfm2_2_5_vl"),
    *("trl/nemotron_3_nano", "trl/nemotron_3_nano_training", "trl/nemotron_3_super"),
    *("trl/nemotron_3_super_training", "trl/nemotron_3_ultra", "trl/nemotron_3_ultra_training"),
    *("trl/nemotron_3_5_lightning", "trl/nemotron_3_5_lightning_training", "trl/qwen3"),
    *("trl/qwen3_5_nothink", "trl/qwen3_5_think", "trl/qwen3_6"),
}


def conversations(end: str) -> Iterator[tuple[str, Conversation]]:
    for name, messages in (SHAPES | REWRITTEN).items():
        told = tuple(replace(m, content=m.content.replace("END", end)) for m in messages)
        tools = TOOLS if any(message.tool_calls for message in told) else ""
        yield name, Conversation.create(told, tools=tools, id=name)


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_turn_is_trained_as_inference_shows_it(small_tokenizer: Any, name: str) -> None:
    tokenizer, ends = speaking(small_tokenizer, TEMPLATES[name], name in PARTS)
    if name in UNENDED:
        pytest.skip("no usable template")
    renderer = ChatRenderer(tokenizer, ends)
    assert renderer.rewrites_history == (name in REWRITING)
    rows = TurnRows(renderer, RowOptions("auto"))
    for shape, conversation in conversations(tokenizer.eos_token):
        try:
            whole = renderer.render(conversation)
        except MaskError:
            continue
        found = rows.of(conversation)
        if name not in REWRITING:  # Unchanged to the bit.
            assert [row.rendered for row in found.rows] == [whole]
            continue
        turns = [index for index, m in enumerate(conversation.messages) if m.trained]
        if not found.by_turn and any(is_refused(renderer, conversation, turn) for turn in turns):
            # Some turn cannot stand at the end of a row, so the conversation is one row.
            assert [row.rendered for row in found.rows] == [whole]
            continue
        shown = [item for row in found.rows for item in turns_of(row)]
        assert sorted(index for index, _, _ in shown) == turns
        for index, row, span in shown:
            assert fits(renderer, conversation, index, row, span), (shape, index)


def fits(
    renderer: ChatRenderer, conversation: Conversation, index: int, row: View, span: Span
) -> bool:
    """Whether a turn follows its prompt and is whole, or its own row begins likewise."""
    text = row.rendered.text
    if renderer.text_until(conversation, index).startswith(text[: span.end]):
        return True
    prompt = renderer.prompt(conversation.messages[:index], conversation.tools)
    lost = any(message == index for message, _ in row.rendered.left_out)
    return text[: span.start] == prompt and not lost


def is_refused(renderer: ChatRenderer, conversation: Conversation, index: int) -> bool:
    messages = tuple(replace(message, trained=False) for message in conversation.messages[:index])
    messages += (conversation.messages[index],)
    try:
        renderer.render(replace(conversation, messages=messages))
    except MaskError:
        return True
    return False


def turns_of(row: View) -> Iterator[tuple[int, View, Span]]:
    """Index of each trained turn of a row, with the row and the turn's span."""
    trained = (index for index, m in enumerate(row.conversation.messages) if m.trained)
    for index, span in zip(trained, row.rendered.spans, strict=True):
        yield index, row, span


def turn(content: str, reasoning: str | None = None, trained: bool = True) -> Message:
    return Message("assistant", content, trained, reasoning=reasoning)


def question(number: int) -> Message:
    return Message("user", f"ask{number}")


TALK = Conversation.create(
    [
        *(Message("system", "rules"), question(0), turn("OK", trained=False)),
        *(question(1), turn("say1", "muse1"), question(2), turn("say2", "muse2")),
        *(question(3), turn("say3", "muse3"), question(4), turn("say4", "muse4")),
    ],
    id="talk",
)
CALLS = Conversation.create(
    [
        question(1),
        *(Message("assistant", "", True, (ToolCall("f", '{"a": "1"}', "c1"),)),),
        Message("tool", "result1", tool_call_id="c1"),
        *(Message("assistant", "", True, (ToolCall("f", '{"a": "2"}', "c2"),)),),
        Message("tool", "result2", tool_call_id="c2"),
        turn("done"),
    ],
    tools='[{"type": "function", "function": {"name": "f", "parameters": {}}}]',
)


def encode(
    tokenizer: Any, conversation: Conversation, **settings: Any
) -> tuple[list[TokenRow], TokenReport]:
    report = TokenReport()
    settings = {"max_length": 4096, "engine": "huggingface", **settings}
    return list(Encoder(tokenizer, **settings).encode([conversation], report)), report


def texts(tokenizer: Any, rows: list[TokenRow]) -> list[tuple[str, list[str]]]:
    """Text of each row, and its trained spans."""
    found = []
    for row in rows:
        trained = row.labels != IGNORE_INDEX
        edges = np.flatnonzero(np.diff(np.concatenate([[False], trained, [False]])))
        spans = [tokenizer.decode(row.input_ids[a:b]) for a, b in edges.reshape(-1, 2)]
        found.append((tokenizer.decode(row.input_ids), spans))
    return found


@pytest.fixture(scope="module")
def drops(small_tokenizer: Any) -> Any:
    tokenizer = copy.deepcopy(small_tokenizer)
    tokenizer.chat_template = DROPS_REASONING
    return tokenizer


def test_a_dropped_thought_is_trained_in_a_row_of_its_own(drops: Any) -> None:
    rows, report = encode(drops, TALK, rows="auto")
    found = texts(drops, rows)
    expected = [f"<think>\nmuse{n}\n</think>\n\nsay{n}<|im_end|>" for n in (1, 2, 3, 4)]
    assert [spans for _, spans in found] == [[span] for span in expected]
    for number, (text, _) in enumerate(found, 1):
        assert text.count("<think>") == 1  # of the last turn alone
        assert [f"say{n}" in text for n in (1, 2, 3, 4)] == [n <= number for n in (1, 2, 3, 4)]
    assert (report.kept, report.rows, report.by_turn, report.turn_rows) == (1, 4, 1, 4)
    assert (report.thoughts_left_out, report.off_prompt, report.trained_turns) == (0, 0, 4)
    assert "1 conversations as 4 rows by turn (an example is a row)" in report.summary()
    whole, before = encode(drops, TALK)
    assert (len(whole), before.thoughts_left_out, before.by_turn) == (1, 3, 0)


@pytest.mark.parametrize(
    ("variables", "reasoning", "count"),
    [({}, False, 1), ({}, True, 4), ({"enable_thinking": False}, False, 4)],
)
def test_only_what_inference_never_shows_is_divided(
    small_tokenizer: Any, variables: dict[str, Any], reasoning: bool, count: int
) -> None:
    if "trl/qwen3" not in TEMPLATES:
        pytest.skip("trl is not installed")
    tokenizer, ends = speaking(small_tokenizer, TEMPLATES["trl/qwen3"], parts=False)
    set_template_variables(tokenizer, variables)
    messages = tuple(m if reasoning else replace(m, reasoning=None) for m in TALK.messages)
    conversation = replace(TALK, messages=messages)
    rows, report = encode(tokenizer, conversation, rows="auto", end_of_turn=ends)
    assert (len(rows), report.off_prompt, report.thoughts_left_out) == (count, 0, 0)
    if count == 1:  # Without reasoning, the prompt and the history are inference's.
        (whole,), _ = encode(tokenizer, conversation, end_of_turn=ends)
        assert np.array_equal(rows[0].input_ids, whole.input_ids)
        assert np.array_equal(rows[0].labels, whole.labels)


def test_turns_without_reasoning_share_the_last_row(drops: Any) -> None:
    keep = {4, 8}
    messages = tuple(
        m if index in keep else replace(m, reasoning=None) for index, m in enumerate(TALK.messages)
    )
    assert [m.reasoning for m in messages if m.reasoning] == ["muse1", "muse3"]
    rows, report = encode(drops, replace(TALK, messages=messages), rows="auto")
    assert [spans for _, spans in texts(drops, rows)] == [
        ["<think>\nmuse1\n</think>\n\nsay1<|im_end|>"],
        ["<think>\nmuse3\n</think>\n\nsay3<|im_end|>"],
        ["say2<|im_end|>", "say4<|im_end|>"],
    ]
    assert (report.turn_rows, report.thoughts_left_out, report.off_prompt) == (3, 0, 0)


def test_the_switch_forces_one_row_or_a_row_per_turn(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer()
    plain = replace(TALK, messages=tuple(replace(m, reasoning=None) for m in TALK.messages))
    (whole,), _ = encode(tokenizer, plain, rows="conversation")
    (same,), report = encode(tokenizer, plain, rows="auto")
    assert np.array_equal(whole.labels, same.labels)
    assert report.by_turn == 0
    rows, report = encode(tokenizer, plain, rows="per_turn")
    assert (report.kept, report.rows, report.turn_rows) == (1, 4, 4)
    # What a turn's own row trains are the same tokens with the same labels.
    joined = np.full_like(whole.labels, IGNORE_INDEX)
    for row in rows:
        size = len(row.labels) - 1  # The template's last line break.
        assert np.array_equal(row.input_ids[:size], whole.input_ids[:size])
        assert row.num_trained
        joined[:size] = np.where(
            row.labels[:size] != IGNORE_INDEX, row.labels[:size], joined[:size]
        )
    assert np.array_equal(joined, whole.labels)


def test_the_context_is_cut_as_a_harness_cuts_it(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer()
    messages = tuple(replace(m, reasoning=None) for m in TALK.messages)
    options = RowOptions("auto", keep_last_turns=1, opening_turns=1)
    rows, report = encode(tokenizer, replace(TALK, messages=messages, options=options))
    found = texts(tokenizer, rows)
    assert [spans for _, spans in found] == [
        ["say1<|im_end|>", "say2<|im_end|>"],  # Nothing is cut before the second turn.
        ["say3<|im_end|>"],
        ["say4<|im_end|>"],
    ]
    assert "NOTICE" not in found[0][0]
    text = found[2][0]
    assert "ask1\n\n[NOTICE] 4 messages are omitted." in text
    assert all(word in text for word in ("rules", "ask0", "OK", "say3", "ask4"))
    assert not any(word in text for word in ("say1", "ask2", "say2", "ask3"))
    assert (report.history_cut, report.turn_rows, report.off_prompt) == (2, 3, 0)
    options = replace(options, rows="per_turn")
    rows, _ = encode(tokenizer, replace(TALK, messages=messages, options=options))
    assert len(rows) == 4


def test_a_result_stays_with_its_call() -> None:
    messages = CALLS.messages[:5]
    assert keep_last_turns(messages, 2, 0) == messages
    kept = keep_last_turns(messages, 1, 0)
    assert [m.role for m in kept] == ["user", "assistant", "tool"]
    assert kept[0].content == "ask1\n\n[NOTICE] 2 messages are omitted."
    late = (*messages[:2], messages[3], messages[2], messages[4])  # both results after both calls
    assert keep_last_turns(late, 1, 0) == late


def test_rows_that_are_too_long_lose_their_oldest_turns(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer()
    plain = tuple(replace(m, reasoning=None) for m in TALK.messages)
    conversation = replace(TALK, messages=plain)
    rows, _ = encode(tokenizer, conversation, rows="per_turn")
    settings = {"rows": "per_turn", "max_length": len(rows[2].input_ids)}  # The fourth is longer.
    cut, report = encode(tokenizer, conversation, policy="shorten", **settings)
    assert (len(cut), report.shortened, report.turns_removed) == (4, 1, 0)
    text = tokenizer.decode(cut[3].input_ids)
    assert all(word in text for word in ("rules", "ask0", "ask1", "say4"))
    assert "say1" not in text
    cut, report = encode(tokenizer, conversation, policy="split", **settings)
    assert (len(cut), report.shortened) == (4, 1)
    assert "ask0" not in tokenizer.decode(cut[3].input_ids)
    cut, report = encode(tokenizer, conversation, policy="drop", **settings)
    assert (len(cut), report.kept, report.turns_removed) == (3, 1, 1)
    assert report.samples["too_long"]
    cut, report = encode(tokenizer, conversation, rows="per_turn", max_length=10)
    assert (cut, report.dropped, report.kept) == ([], {"too_long": 1}, 0)


MASKED = RowOptions(mask_reasoning=True)


@pytest.mark.parametrize("as_text", [False, True])
def test_masked_reasoning_is_context_without_loss(
    drops: Any, make_tokenizer: Any, as_text: bool
) -> None:
    tokenizer = make_tokenizer() if as_text else drops
    rows, report = encode(tokenizer, replace(TALK, options=MASKED))
    unmasked, _ = encode(tokenizer, TALK, rows="auto")
    assert (report.reasoning_masked, report.off_prompt) == (4, 0)
    for row, other in zip(rows, unmasked, strict=True):
        assert np.array_equal(row.input_ids, other.input_ids)
        kept = row.labels != IGNORE_INDEX
        assert np.array_equal(row.labels[kept], other.labels[kept])
        assert 0 < row.num_trained < other.num_trained
    spans = [span for _, found in texts(tokenizer, rows) for span in found]
    assert spans == [f"say{n}<|im_end|>" for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("name", TEMPLATES)
def test_masking_leaves_the_answer_trained_under_every_template(
    small_tokenizer: Any, name: str
) -> None:
    tokenizer, ends = speaking(small_tokenizer, TEMPLATES[name], name in PARTS)
    if name in UNENDED:
        pytest.skip("no usable template")
    renderer = ChatRenderer(tokenizer, ends)
    for shape, conversation in conversations(tokenizer.eos_token):
        try:
            whole = renderer.render(conversation)
        except MaskError:
            continue
        masked = renderer.render(replace(conversation, options=MASKED))
        assert masked.text == whole.text
        for span, other in zip(masked.spans, whole.spans, strict=True):
            assert other.start <= span.start < span.end == other.end
            text = whole.text[span.start : span.end]
            assert "muse" not in text
            taken = whole.text[other.start : span.start]
            if "muse" not in taken:  # An empty thought of the template.
                assert not any(mark in taken for mark in ("say", "Ann", "Who", "seek")), shape


def test_unknown_rows_are_refused(make_tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="rows: found 'each', expected one of auto, conv"):
        Encoder(make_tokenizer(), max_length=10, rows="each")  # type: ignore[arg-type]
