from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.conversation import Conversation, Message
from dataset_builders.encoding.tokens import (
    IGNORE_INDEX,
    Encoder,
    TokenReport,
    TokenRow,
    encode_dataset,
)
from dataset_builders.errors import ConfigError, DataError
from dataset_builders.masks.chat import ChatRenderer
from dataset_builders.masks.chat_templates import load_template

pytest.importorskip("transformers")


def talk(*turns: tuple[str, str, bool], id: str = "t_1") -> Conversation:
    return Conversation.create(
        [Message(role, content, trained) for role, content, trained in turns],  # type: ignore[arg-type]
        id=id,
        source="test",
    )


def trained_text(tokenizer: Any, row: TokenRow) -> list[str]:
    """Decoded runs of trained tokens."""
    runs: list[list[int]] = []
    before = IGNORE_INDEX
    for label in row.labels.tolist():
        if label != IGNORE_INDEX:
            if before == IGNORE_INDEX:
                runs.append([])
            runs[-1].append(label)
        before = label
    return [tokenizer.decode(run) for run in runs]


AGENT = talk(
    ("user", "Rules.", False),
    ("assistant", "OK", False),
    ("user", "List the files.", False),
    ("assistant", "Think: ls\nAct: bash\n\n```bash\nls\n```", True),
    ("user", "a.txt", False),
    ("assistant", "Answer: a.txt", True),
)
PLAIN = talk(("user", "q", False), ("assistant", "a", True))
UNTRAINED = talk(("user", "q", False), ("assistant", "a", False), id="t_2")
LONG = talk(("user", "q" * 200, False), ("assistant", "a" * 200, True), id="t_3")
REFUSED = talk(("assistant", "a", True), id="t_4")


@pytest.mark.parametrize("name", ["small", "smollm2", "llama2"])
def test_labels_cover_the_trained_turns_and_their_ends_alone(
    request: pytest.FixtureRequest, name: str
) -> None:
    tokenizer = request.getfixturevalue(f"{name}_tokenizer")
    end = " </s>" if name == "llama2" else "<|im_end|>"
    encoder = Encoder(tokenizer, max_length=10_000)
    (row,) = encoder.encode([AGENT], TokenReport())
    assert row.input_ids.dtype == row.labels.dtype == np.int32
    # Nothing is added to the template's own text.
    text = encoder.renderer.render(AGENT).text
    assert row.input_ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
    taught = row.labels != IGNORE_INDEX
    assert (row.labels[taught] == row.input_ids[taught]).all()
    assert row.num_trained == taught.sum() > 0
    turns = [message.content + end for message in AGENT.messages if message.trained]
    assert trained_text(tokenizer, row) == turns


@pytest.fixture(scope="module")
def encoders(request: pytest.FixtureRequest) -> Callable[[str], Encoder]:
    """Encoder of a tokenizer by its name, made once."""
    made: dict[str, Encoder] = {}

    def encoder(name: str) -> Encoder:
        if name not in made:
            tokenizer = request.getfixturevalue(f"{name}_tokenizer")
            made[name] = Encoder(tokenizer, max_length=10_000)
        return made[name]

    return encoder


@pytest.mark.parametrize("name", ["small", "smollm2", "llama2"])
@settings(max_examples=40, deadline=None, database=None)
@given(
    contents=st.lists(
        st.text(st.sampled_from("ab\n \t🙂👩\u200d🚀é中\u0301\u00a0<|>▁"), max_size=8),
        min_size=2,
        max_size=6,
    ),
    flags=st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_any_characters_are_covered_exactly(
    request: pytest.FixtureRequest,
    encoders: Callable[[str], Encoder],
    name: str,
    contents: list[str],
    flags: list[bool],
) -> None:
    # Characters that are spread over several tokens, and ones that merge over a border.
    tokenizer = request.getfixturevalue(f"{name}_tokenizer")
    pairs = list(zip(contents[::2], contents[1::2], strict=False))
    turns = [
        turn
        for (ask, answer), flag in zip(pairs, flags, strict=False)
        for turn in (("user", "." + ask, False), ("assistant", answer, flag))
    ]
    report = TokenReport()
    rows = list(encoders(name).encode([talk(*turns)], report))
    expected = [answer for (_, answer), flag in zip(pairs, flags, strict=False) if flag]
    if not expected:
        assert report.dropped == {"no_trained_turn": 1}
        return
    (row,) = rows
    if name == "llama2":
        # Its tokens write a blank as ▁, so the two cannot be told apart.
        assert [run.strip() for run in trained_text(tokenizer, row)] == [
            f"{answer.strip()} </s>".replace("▁", " ").strip() for answer in expected
        ]
    else:
        for run, answer in zip(trained_text(tokenizer, row), expected, strict=True):
            # SmolLM2 merges the line break before a turn with white space that begins it.
            extra = run.removesuffix(answer + "<|im_end|>")
            assert extra == "" or (name, extra, answer[:1].strip()) == ("smollm2", "\n", "")


def test_a_conversation_that_teaches_nothing_is_left_out_and_counted(small_tokenizer: Any) -> None:
    report = TokenReport()
    rows = list(Encoder(small_tokenizer, max_length=100).encode([UNTRAINED, PLAIN], report))
    assert len(rows) == 1
    assert report.dropped == {"no_trained_turn": 1}
    assert report.samples == {"no_trained_turn": ["test/t_2: no turn is marked as trained"]}
    assert (report.read, report.kept) == (2, 1)
    assert (report.tokens, report.trained_tokens) == (len(rows[0].input_ids), 2)
    assert "1 of 2 conversations" in report.summary()
    assert "dropped 1 no_trained_turn" in report.summary()


def test_rows_that_are_too_long(small_tokenizer: Any) -> None:
    (whole,) = Encoder(small_tokenizer, max_length=10_000).encode([LONG], TokenReport())
    total = len(whole.input_ids)
    start = int(np.argmax(whole.labels != IGNORE_INDEX))

    def encode(max_length: int, policy: Any) -> tuple[list[TokenRow], TokenReport]:
        report = TokenReport()
        encoder = Encoder(small_tokenizer, max_length=max_length, policy=policy)
        return list(encoder.encode([LONG], report)), report

    for policy in ("drop", "truncate", "raise"):
        rows, report = encode(total, policy)
        assert [len(row.input_ids) for row in rows] == [total]
        assert (report.dropped, report.truncated) == ({}, 0)
    assert encode(total - 1, "drop")[1].dropped == {"too_long": 1}
    (cut,), report = encode(start + 1, "truncate")
    assert cut.input_ids.tolist() == whole.input_ids[: start + 1].tolist()
    assert cut.labels.tolist() == [IGNORE_INDEX] * start + [int(whole.input_ids[start])]
    assert (report.kept, report.truncated, report.trained_tokens) == (1, 1, 1)
    assert "1 truncated" in report.summary()
    rows, report = encode(start, "truncate")
    assert (rows, report.truncated) == ([], 0)
    assert report.dropped == {"no_trained_token_left": 1}
    words = rf"^test/t_3: found {total} tokens, expected at most {total - 1}$"
    with pytest.raises(DataError, match=words):
        encode(total - 1, "raise")


def test_settings_out_of_range_are_refused(small_tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="max_length: found 0"):
        Encoder(small_tokenizer, max_length=0)
    wrong: Any = "cut"
    with pytest.raises(ConfigError, match="found 'cut', expected one of drop, split"):
        Encoder(small_tokenizer, max_length=1, policy=wrong)
    with pytest.raises(ConfigError, match="engine: found 'cut', expected one of auto"):
        Encoder(small_tokenizer, max_length=1, engine=wrong)


def test_nothing_left_is_an_error_that_counts(
    small_tokenizer: Any, make_tokenizer: Callable[..., Any]
) -> None:
    for policy, reason in (("drop", "2 too_long"), ("truncate", "2 no_trained_token_left")):
        encoder: Any = Encoder(small_tokenizer, max_length=2, policy=policy)  # type: ignore[arg-type]
        with pytest.raises(DataError) as error:
            encode_dataset([PLAIN, UNTRAINED, LONG], encoder, what="agent")
        message = str(error.value)
        assert message.startswith("agent: no trainable row is left (0 of 3 conversations")
        assert reason in message
        assert "1 no_trained_turn" in message
        assert "Example: test/t_1: found" in message
        assert "\n" not in message
    encoder = Encoder(make_tokenizer(load_template("llama-2"), "</s>"), max_length=100)
    with pytest.raises(DataError, match=r"dropped 1 template.*t_4: the chat template rejects"):
        encode_dataset([REFUSED], encoder)
    with pytest.raises(DataError, match=r"no trainable row is left \(0 of 0 conversations"):
        encode_dataset([], encoder)


KINDS = {"plain": PLAIN, "untrained": UNTRAINED, "long": LONG, "refused": REFUSED, "agent": AGENT}


@settings(max_examples=40, deadline=None, database=None)
@given(
    kinds=st.lists(st.sampled_from(sorted(KINDS)), max_size=12),
    copies=st.sampled_from([1, 40]),
    policy=st.sampled_from(["drop", "truncate", "split", "shorten"]),
)
def test_every_conversation_is_kept_or_counted(
    make_tokenizer: Callable[..., Any], kinds: list[str], copies: int, policy: Any
) -> None:
    tokenizer = make_tokenizer(load_template("llama-2"), "</s>")
    conversations = [KINDS[kind] for kind in kinds] * copies
    encoder = Encoder(tokenizer, max_length=190, policy=policy)
    report, progress = TokenReport(), 0

    def advance(number: int) -> None:
        nonlocal progress
        progress += number

    rows = list(encoder.encode(iter(conversations), report, advance))
    assert report.read == progress == len(conversations)
    assert report.read == report.kept + sum(report.dropped.values())
    assert report.rows == len(rows) == report.kept - report.split + report.pieces
    assert report.dropped.get("template", 0) == kinds.count("refused") * copies
    assert report.dropped.get("no_trained_turn", 0) == kinds.count("untrained") * copies
    assert report.tokens == sum(len(row.input_ids) for row in rows)
    assert report.trained_tokens == sum(row.num_trained for row in rows)
    assert all(len(sample) <= 3 for sample in report.samples.values())
    assert all(0 < row.num_trained <= len(row.input_ids) <= 190 for row in rows)


def test_a_batch_gives_what_each_alone_gives(small_tokenizer: Any) -> None:
    encoder = Encoder(small_tokenizer, max_length=10_000)
    mixed = [
        talk(("user", f"q{n} é🙂", False), ("assistant", f"a {n}" * (n % 7 + 1), True))
        for n in range(300)
    ]
    together = list(encoder.encode(mixed, TokenReport()))
    assert len(together) == 300
    for conversation, row in zip(mixed, together, strict=True):
        (alone,) = encoder.encode([conversation], TokenReport())
        assert alone.input_ids.tolist() == row.input_ids.tolist()
        assert alone.labels.tolist() == row.labels.tolist()


def test_each_conversation_is_rendered_once_and_the_collector_runs_again(
    small_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    talks = [
        Conversation.create([Message("user", f"q {n}"), Message("assistant", "a", trained=True)])
        for n in range(300)
    ]
    rendered: list[tuple[str, bool]] = []
    render = ChatRenderer.render

    def count(self: ChatRenderer, conversation: Conversation, certify: bool = False) -> Any:
        assert not gc.isenabled()
        rendered.append((conversation.messages[0].content, certify))
        return render(self, conversation, certify)

    monkeypatch.setattr(ChatRenderer, "render", count)
    encoder = Encoder(small_tokenizer, max_length=500, engine="tiktoken")
    made = encode_dataset(talks, encoder)
    # The rendering on which the engine is chosen is the one that is encoded.
    assert rendered == [(f"q {n}", n < 32) for n in range(300)]
    assert (made.report.kept, made.report.certified) == (300, 32)
    assert gc.isenabled()
    gc.disable()
    try:
        assert encode_dataset(talks, encoder).dataset.to_list() == made.dataset.to_list()
        assert not gc.isenabled()  # as it was found
    finally:
        gc.enable()


def test_the_dataset_has_the_columns_that_trainers_read(small_tokenizer: Any) -> None:
    encoder = Encoder(small_tokenizer, max_length=10_000)
    rows = list(encoder.encode([AGENT, PLAIN], TokenReport()))
    made = encode_dataset([AGENT, UNTRAINED, PLAIN], encoder)
    dataset, report = made.dataset, made.report
    assert (report.kept, report.read, len(dataset)) == (2, 3, 2)
    assert dataset.column_names == ["input_ids", "labels", "attention_mask"]
    for item, row in zip(dataset, rows, strict=True):
        length = len(row.input_ids)
        assert item["input_ids"] == row.input_ids.tolist()
        assert item["labels"] == row.labels.tolist()
        assert item["attention_mask"] == [1] * length


def test_turns_off_their_prompt_reach_the_report(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer()
    report = TokenReport()
    list(Encoder(tokenizer, max_length=500).encode([AGENT, PLAIN], report))
    assert (report.certified, report.off_prompt) == (2, 0)
    assert "off their prompt" not in report.summary()
    # The prompt opens a thought that no turn has.
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "'<|im_start|>assistant\\n'", "'<|im_start|>assistant\\n<think>'"
    )
    report = TokenReport()
    list(Encoder(tokenizer, max_length=500).encode([AGENT, PLAIN], report))
    assert report.off_prompt == 3
    assert "3 turns off their prompt (of 2 conversations certified)" in report.summary()


def test_a_prompt_of_other_ids_is_off(smollm2_tokenizer: Any) -> None:
    # Two line breaks are one token at the end of a text and two before a word.
    tokenizer = copy.deepcopy(smollm2_tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n\n{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}"
    )
    encoder, report = Encoder(tokenizer, max_length=500), TokenReport()
    assert encoder.renderer.render(PLAIN, certify=True).off_prompt == 0
    list(encoder.encode([PLAIN], report))
    assert report.off_prompt == 1
