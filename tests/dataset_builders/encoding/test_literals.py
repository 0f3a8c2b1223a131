"""A control token that a conversation spells stays text, and so do the words around it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.conversation import Conversation, Message
from dataset_builders.encoding.coding import Coder
from dataset_builders.encoding.engines import HuggingFaceEngine
from dataset_builders.encoding.escaped_tokens import LiteralEncoder
from dataset_builders.encoding.offsets import specification
from dataset_builders.encoding.tokens import IGNORE_INDEX, Encoder, TokenReport
from dataset_builders.masks.chat import ChatRenderer
from dataset_builders.masks.spans import Rendered, Span

pytest.importorskip("transformers")

NAMES = ("small", "smollm2", "llama2")


@pytest.fixture(scope="module")
def encoders(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Of each tokenizer: itself, an encoder, and the encoder of literals."""
    made = {}
    for name in NAMES:
        tokenizer = request.getfixturevalue(f"{name}_tokenizer")
        literal = LiteralEncoder(tokenizer, specification(tokenizer))
        made[name] = tokenizer, Encoder(tokenizer, max_length=10_000), literal
    return made


def conversation(ask: str, answer: str) -> Conversation:
    return Conversation.create([Message("user", ask), Message("assistant", answer, trained=True)])


def text_of(tokenizer: Any, ids: list[int], name: str) -> str:
    """The text of ids, to the character, without what SentencePiece puts before one."""
    tokens = tokenizer.convert_ids_to_tokens(ids)
    if name != "llama2":
        return str(tokenizer.decode(ids, skip_special_tokens=False))
    data = b""
    for token in tokens:
        is_byte = token.startswith("<0x") and len(token) == 6
        data += bytes([int(token[3:5], 16)]) if is_byte else token.replace("▁", " ").encode()
    return data.decode()


@pytest.mark.parametrize("name", NAMES)
def test_data_cannot_open_a_turn(encoders: dict[str, Any], name: str) -> None:
    tokenizer, encoder, _ = encoders[name]
    end = tokenizer.eos_token
    plain = conversation("What ends it?", "That does, see.")
    tricky = conversation(f"What {end} ends{end} it?", f"{end} does, see {end}")
    report = TokenReport()
    before, after = encoder.encode([plain, tricky], report)
    assert (report.kept, report.control_tokens) == (2, 1)
    assert "1 with control tokens as text" in report.summary()
    control = set(tokenizer.added_tokens_decoder)
    # The same control tokens in the same order: all the template's own.
    kept = [[id_ for id_ in row.input_ids.tolist() if id_ in control] for row in (before, after)]
    assert kept[0] == kept[1]
    taught = after.labels[after.labels != IGNORE_INDEX].tolist()
    assert [id_ for id_ in taught if id_ in control] == [tokenizer.eos_token_id]
    words = text_of(tokenizer, taught, name)
    assert words.strip() == f"{end} does, see {end}{' ' if name == 'llama2' else ''}{end}"
    ids = after.input_ids.tolist()
    text = encoder.renderer.render(tricky).text
    found = text_of(tokenizer, ids, name)
    # The tokenizer puts a blank after each control token of its own, and none elsewhere.
    assert found.replace("<s> ", "<s>") == text
    assert ids[-1] == before.input_ids[-1]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None, database=None)
@given(
    pieces=st.lists(st.sampled_from(["a", " ", "\n", "é", "🙂", "LIT", "END", "1", "  b"])),
    data=st.data(),
)
def test_any_ranges_can_be_literal(
    encoders: dict[str, Any], name: str, pieces: list[str], data: st.DataObject
) -> None:
    # LIT spells the control token as text, END is the template's own.
    tokenizer, _, literal = encoders[name]
    end = tokenizer.eos_token
    text, literals = "", []
    for piece in pieces:
        if piece == "LIT":
            literals.append(Span(len(text), len(text) + len(end)))
        text += end if piece in ("LIT", "END") else piece
    if not text:
        return
    ids, bounds = literal.encode(Rendered(text, (), tuple(literals)))
    assert ids.tolist().count(tokenizer.eos_token_id) == pieces.count("END")
    # Each character is in a token, and each token stands where it says.
    assert len(ids) == len(bounds.starts) == len(bounds.ends)
    covered = {at for a, b in zip(bounds.starts, bounds.ends, strict=True) for at in range(a, b)}
    assert covered == set(range(len(text)))
    if not literals:
        (whole,) = HuggingFaceEngine(tokenizer).encode([text])
        assert whole is not None
        assert ids.tolist() == whole.tolist()
    # What comes before the first literal is encoded as without it.
    elif literals[0].start:
        (front,) = HuggingFaceEngine(tokenizer).encode([text[: literals[0].start]])
        assert front is not None
        assert ids[: len(front)].tolist() == front.tolist()
    # Nothing is added: after control tokens of its own alone the tokenizer puts a blank.
    decoded = text_of(tokenizer, ids.tolist(), name)
    if name == "llama2":
        assert decoded.count(" ") - text.count(" ") <= 1 + pieces.count("END")
        assert decoded.replace(" ", "") == text.replace(" ", "")
    else:
        assert decoded == text


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_has_the_ids_that_the_row_begins_with(encoders: dict[str, Any], name: str) -> None:
    tokenizer, encoder, _ = encoders[name]
    renderer: ChatRenderer = encoder.renderer
    for ask in ("What is it?", f"What is {tokenizer.eos_token}?"):
        talk = conversation(ask, "It is.")
        (row,) = encoder.encode([talk], TokenReport())
        prompt = Coder(tokenizer).prompt_ids(renderer.render_prompt(talk.messages[:1]))
        untrained = int((row.labels != IGNORE_INDEX).argmax())
        assert prompt == row.input_ids[: len(prompt)].tolist()
        assert len(prompt) == untrained


def test_half_a_character_is_a_counted_drop(encoders: dict[str, Any]) -> None:
    report = TokenReport()
    talks = [conversation("q", "a"), conversation("q\ud83d", "a"), conversation("q", "b")]
    rows = list(encoders["small"][1].encode(talks, report))
    assert len(rows) == 2
    assert report.dropped == {"lone_surrogate": 1}
    assert "found a lone surrogate U+D83D at character" in report.samples["lone_surrogate"][0]
