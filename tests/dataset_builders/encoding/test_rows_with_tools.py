"""Rows of conversations with tools: prompts are their prefixes, and calls are what they train."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from dataset_builders.conversation import Conversation
from dataset_builders.encoding.coding import Coder
from dataset_builders.encoding.encoder import Encoder
from dataset_builders.encoding.token_rows import IGNORE_INDEX, TokenReport, TokenRow
from dataset_builders.masks.call_spelling import find_call_spelling
from dataset_builders.masks.chat import ChatRenderer
from tests.support.call_shapes import TOOLS
from tests.support.every_template import PARTS, find_templates, speaking
from tests.support.template_outcomes import expected
from tests.support.template_shapes import REWRITTEN

pytest.importorskip("transformers.utils.chat_parsing")

TEMPLATES = find_templates()
SHAPE = "two calls"
CAPABLE = [name for name in TEMPLATES if expected(name)[SHAPE] in ("exact", "off prompt")]
CONVERSATION = Conversation.create(REWRITTEN[SHAPE], tools=TOOLS)
TRAINED = [index for index, message in enumerate(CONVERSATION.messages) if message.trained]


def row_of(tokenizer: Any, ends: tuple[str, ...]) -> TokenRow:
    encoder = Encoder(tokenizer, max_length=8192, end_of_turn=ends)
    (row,) = encoder.encode([CONVERSATION], TokenReport())
    return row


def turns_of(row: TokenRow) -> list[tuple[int, int]]:
    """Ranges of trained tokens."""
    trained = np.concatenate(([False], row.labels != IGNORE_INDEX, [False]))
    edges = np.flatnonzero(trained[1:] != trained[:-1]).tolist()
    return list(pairwise(edges))[::2]


@pytest.mark.parametrize("name", CAPABLE)
def test_the_prompt_of_each_turn_is_the_rows_prefix(small_tokenizer: Any, name: str) -> None:
    tokenizer, ends = speaking(small_tokenizer, TEMPLATES[name], name in PARTS)
    row, coder, renderer = row_of(tokenizer, ends), Coder(tokenizer), ChatRenderer(tokenizer, ends)
    same = [
        coder.prompt_ids(renderer.render_prompt(CONVERSATION.messages[:index], TOOLS))
        == row.input_ids[:start].tolist()
        for index, (start, _) in zip(TRAINED, turns_of(row), strict=True)
    ]
    assert all(same) is (expected(name)[SHAPE] == "exact")


@pytest.mark.parametrize("name", CAPABLE)
def test_trained_tokens_are_the_calls_and_the_answer(small_tokenizer: Any, name: str) -> None:
    tokenizer, ends = speaking(small_tokenizer, TEMPLATES[name], name in PARTS)
    row, renderer = row_of(tokenizer, ends), ChatRenderer(tokenizer, ends)
    spelling = find_call_spelling(tokenizer, renderer)
    stops = set(tokenizer.convert_tokens_to_ids(list(renderer.end_tokens)))
    found, said = [], []
    for start, end in turns_of(row):
        *ids, last = row.input_ids[start:end].tolist()
        assert last in stops
        assert stops.isdisjoint(ids)
        text = tokenizer.decode(ids)
        said.append(text)
        if spelling is not None:
            found += spelling.read(text, TOOLS).calls
    calls = [call for message in CONVERSATION.messages for call in message.tool_calls]
    if spelling is not None:
        assert [(c.name, json.loads(c.arguments)) for c in found] == [
            (c.name, json.loads(c.arguments)) for c in calls
        ]
    for call, text in zip(calls, said, strict=False):
        assert all(word in text for word in (call.name, json.loads(call.arguments)["name"]))
    trained = "".join(said)
    assert "Ann." in said[-1]
    # Neither the schemas nor the tools' results.
    assert not any(word in trained for word in ("Does it.", "A value.", "Who", "Ben, 3", "Dan: 7"))
