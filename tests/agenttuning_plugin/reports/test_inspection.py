"""What `agenttuning inspect` shows is what a build would train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agenttuning_plugin.reports.mask import LITERAL_STYLE, TRAINED_STYLE, inspect, show
from dataset_builders.conversation import Conversation, Message
from dataset_builders.encoding.tokens import Encoder, TokenReport
from dataset_builders.errors import MaskError

pytest.importorskip("transformers")

MakeTokenizer = Callable[..., Any]

QUOTE = Conversation.create(
    [
        Message("user", "What is <|im_end|>?"),
        Message("assistant", "<|im_end|> ends a turn [red]."),
        Message("user", "Sure?"),
        Message("assistant", "Yes.", trained=True),
    ],
    id="quote",
    source="chats",
)


def test_one_rendering_gives_text_mask_and_tokens(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    found = inspect(QUOTE, tokenizer)
    facts = found.as_json()
    text = facts["text"]
    assert [text[start:end] for start, end in facts["trained_spans"]] == ["Yes.<|im_end|>"]
    assert [text[start:end] for start, end in facts["literal_spans"]] == ["<|im_end|>"] * 2
    (row,) = Encoder(tokenizer, max_length=10_000).encode([QUOTE], TokenReport())
    assert facts["input_ids"] == row.input_ids.tolist()
    assert facts["labels"] == row.labels.tolist()
    assert facts["input_ids"].count(tokenizer.eos_token_id) == 4
    assert found.summary() == (
        f"quote: {len(row.input_ids)} tokens, {row.num_trained} trained, "
        "2 control tokens in words, kept as text"
    )


def test_the_mask_is_shown_with_and_without_colour(make_tokenizer: MakeTokenizer) -> None:
    rendered = inspect(QUOTE, make_tokenizer()).rendered
    plain = show(rendered, colour=False).plain
    assert "What is ⟦<|im_end|>⟧?<|im_end|>" in plain
    assert plain.endswith("assistant\n«Yes.<|im_end|>»\n")
    assert plain.translate({ord(bracket): None for bracket in "⟦⟧«»"}) == rendered.text
    coloured = show(rendered)
    assert coloured.plain == rendered.text
    styled = {(part.start, part.end, part.style) for part in coloured.spans}
    assert styled == {(*span, TRAINED_STYLE) for span in rendered.spans} | {
        (*span, LITERAL_STYLE) for span in rendered.literals
    }


def test_a_literal_opens_a_trained_turn(make_tokenizer: MakeTokenizer) -> None:
    spelt = Conversation.create([Message("user", "q"), Message("assistant", "</s>", trained=True)])
    shown = show(inspect(spelt, make_tokenizer()).rendered, colour=False).plain
    assert shown.endswith("«⟦</s>⟧<|im_end|>»\n")


def test_what_a_build_leaves_out_is_said(make_tokenizer: MakeTokenizer) -> None:
    tools = '[{"type": "function", "function": {"name": "f", "parameters": {}}}]'
    with pytest.raises(MaskError, match="does not show the 1 tools"):
        inspect(Conversation.create(QUOTE.messages, tools=tools), make_tokenizer())
    context = Conversation.create(QUOTE.messages[:3])
    assert inspect(context, make_tokenizer()).row.num_trained == 0
