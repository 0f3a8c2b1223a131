"""Ids and labels are those of Axolotl's own chat_template strategy, on real conversations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.conversation import Conversation, Message, to_row
from dataset_builders.encoding.tokens import IGNORE_INDEX, Encoder, TokenReport
from dataset_builders.sources.loading import SourceSpec, load_source

jinja2 = pytest.importorskip("jinja2")
pytest.importorskip("axolotl")

pytestmark = [
    # Axolotl's import alone takes 20 s on a busy machine.
    pytest.mark.timeout(600),
    # torchao, which Axolotl imports, where its byte code is not cached.
    pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning"),
]

Strategy = Callable[[Conversation], dict[str, list[int]]]


def _strategy(tokenizer: Any) -> Strategy:
    from axolotl.prompt_strategies.chat_template import load
    from axolotl.utils.dict import DictDefault

    strategy = load(
        tokenizer,
        DictDefault(train_on_inputs=False, sequence_len=10**9),
        {
            "chat_template": "tokenizer_default",
            "field_messages": "messages",
            "message_property_mappings": {"role": "role", "content": "content"},
            "message_field_training": "train",
            "train_on_eos": "turn",
        },
    )
    return lambda conversation: strategy.tokenize_prompt(
        {"messages": to_row(conversation)["messages"]}
    )


@pytest.fixture(scope="module")
def conversations(shared: Path) -> dict[str, list[Conversation]]:
    agent = load_source(SourceSpec(str(shared / "data/agentinstruct"), "agentinstruct"))
    chat = load_source(
        SourceSpec(str(shared / "data/sharegpt/sharegpt_v3_sample.json"), "sharegpt", limit=500)
    )
    return {"agent": agent.conversations, "chat": chat.conversations}


def _pairs(
    tokenizer: Any, conversations: Sequence[Conversation]
) -> list[tuple[Conversation, list[int], list[int], list[int]]]:
    """Each conversation with its ids, our labels and Axolotl's.

    Conversations that spell a control token are left out: Axolotl takes the spelling for
    the token, here it stays text.
    """
    encoder = Encoder(tokenizer, max_length=10**9)
    report = TokenReport()
    ours = list(encoder.encode(conversations, report))
    assert report.kept == len(conversations), report.summary()
    theirs = _strategy(tokenizer)
    pairs = []
    for conversation, row in zip(conversations, ours, strict=True):
        expected = theirs(conversation)
        if literals := encoder.renderer.render(conversation).literals:
            specials = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
            few, many = (
                sum(id_ in specials for id_ in ids)
                for ids in (row.input_ids.tolist(), expected["input_ids"])
            )
            assert few == many - len(literals), conversation.id
            assert tokenizer.decode(row.input_ids) == tokenizer.decode(expected["input_ids"])
            continue
        assert row.input_ids.tolist() == expected["input_ids"], conversation.id
        pairs.append((conversation, expected["input_ids"], row.labels.tolist(), expected["labels"]))
    return pairs


# Two conversations of the 500 write <|endoftext|> and <filename>.
@pytest.mark.parametrize(("source", "count"), [("agent", 759), ("chat", 498)])
def test_chatml_rows_are_identical(
    smollm2_tokenizer: Any, conversations: dict[str, list[Conversation]], source: str, count: int
) -> None:
    pairs = _pairs(smollm2_tokenizer, conversations[source])
    assert len(pairs) == count
    for conversation, _, ours, theirs in pairs:
        assert ours == theirs, conversation.id
        # Not an agreement about nothing: as many turn ends are trained as turns.
        assert ours.count(smollm2_tokenizer.eos_token_id) == conversation.num_trained


@pytest.mark.parametrize(("source", "count", "turns"), [("agent", 759, 4736), ("chat", 500, 1708)])
def test_llama2_rows_differ_by_the_blanks_around_a_turn_alone(
    llama2_tokenizer: Any,
    conversations: dict[str, list[Conversation]],
    source: str,
    count: int,
    turns: int,
) -> None:
    # The layout is ' ' + content + ' ' + eos. Generation has to produce both blanks, so
    # they are trained here; to Axolotl they are template text. The first one is mostly
    # one token with the word after it, which is trained by both.
    blank, eos = llama2_tokenizer.convert_tokens_to_ids(["▁", "</s>"])
    instruction_end = llama2_tokenizer.convert_tokens_to_ids("]")
    pairs = _pairs(llama2_tokenizer, conversations[source])
    assert len(pairs) == count
    blanks = 0
    for conversation, ids, ours, theirs in pairs:
        different = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
        for i in different:
            assert ids[i + 1] == eos or ids[i - 1] == instruction_end, conversation.id
            assert (ours[i], theirs[i]) == (blank, IGNORE_INDEX), conversation.id
        ends = [i for i, label in enumerate(ours) if label == eos]
        assert len(ends) == conversation.num_trained, conversation.id
        last = [i for i in different if ids[i + 1] == eos]
        assert last == [i - 1 for i in ends if ids[i - 1] == blank], conversation.id
        blanks += len(last)
    # In these data no blank merges with the word before it.
    assert blanks == turns == sum(item.num_trained for item in conversations[source])


USER = Message("user", "q")
TRAINED = Message("assistant", "a", trained=True)


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param((TRAINED, USER), id="assistant first"),
        pytest.param((USER, USER, TRAINED), id="two users"),
        pytest.param((USER, TRAINED, TRAINED), id="two assistants"),
        pytest.param((USER, TRAINED, Message("system", "s")), id="system last"),
        pytest.param((Message("system", "s"), TRAINED), id="system, then assistant"),
    ],
)
def test_what_the_llama2_template_refuses_is_refused_by_both(
    llama2_tokenizer: Any, messages: tuple[Message, ...]
) -> None:
    conversation = Conversation.create(messages, id="odd")
    report = TokenReport()
    assert list(Encoder(llama2_tokenizer, max_length=100).encode([conversation], report)) == []
    assert report.dropped == {"template": 1}
    with pytest.raises(jinja2.TemplateError):
        _strategy(llama2_tokenizer)(conversation)
