from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataset_builders import build_mix
from dataset_builders.conversation import Conversation, Message
from dataset_builders.errors import ConfigError, DataError, SourceNotFoundError
from dataset_builders.mixing.order import MixOrder
from dataset_builders.mixing.planning import Plan
from dataset_builders.mixing.preparation import (
    Encoding,
    check_settings,
    prepare,
    prepare_messages,
)
from dataset_builders.sources.detection import detect_format
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import SourceSpec, load_source
from dataset_builders.sources.rows import to_dataset

pytest.importorskip("transformers")


def agent_record(number: int) -> dict[str, Any]:
    return {
        "id": f"db_{number}",
        "conversations": [
            {"from": "human", "loss": None, "value": f"Rules {number}."},
            {"from": "gpt", "loss": False, "value": "OK"},
            {"from": "human", "loss": None, "value": "Count."},
            {"from": "gpt", "loss": True, "value": f"agent {number}"},
        ],
    }


def chat_record(number: int) -> dict[str, Any]:
    return {
        "id": f"c_{number}",
        "conversations": [
            {"from": "human", "value": f"Hello {number}"},
            {"from": "gpt", "value": f"chat {number}"},
        ],
    }


def write(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    return write(tmp_path / "db.jsonl", [agent_record(n) for n in range(6)])


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    return write(tmp_path / "chat.jsonl", [chat_record(n) for n in range(20)])


def answers(mix: Any) -> list[str]:
    return [row["messages"][-1]["content"] for row in mix]


def trained(tokenizer: Any, rows: Any) -> list[str]:
    return [tokenizer.decode([i for i in row["labels"] if i >= 0]) for row in rows]


def expected(num_agent: int, num_general: int, eta: float, seed: int, count: int) -> list[str]:
    indices = MixOrder(num_agent, num_general, eta, seed, count).indices().tolist()
    return [f"agent {i}" if i < num_agent else f"chat {i - num_agent}" for i in indices]


def build_rows(path: Path, tokenizer: Any) -> Any:
    encoding = Encoding(max_length=500)
    return prepare(path, None, plan=Plan(1), tokenizer=tokenizer, encoding=encoding).agent


GIVEN: dict[str, Callable[[Path, Any], Any]] = {
    "path": lambda path, tokenizer: path,
    "text": lambda path, tokenizer: str(path),
    "spec": lambda path, tokenizer: resolve_source(path),
    "specs": lambda path, tokenizer: [SourceSpec(str(path))],
    "conversations": lambda path, tokenizer: load_source(resolve_source(path)).conversations,
    "messages dataset": lambda path, tokenizer: to_dataset(
        load_source(resolve_source(path)).conversations
    ),
    "encoded dataset": build_rows,
}


@pytest.mark.parametrize("kind", GIVEN)
def test_every_kind_of_source_gives_the_same_mix(
    small_tokenizer: Any, agent: Path, chat: Path, kind: str
) -> None:
    sources = [GIVEN[kind](path, small_tokenizer) for path in (agent, chat)]
    texts = expected(6, 20, 0.3, 9, 50)
    rows = build_mix(
        *sources, eta=0.3, num_examples=50, seed=9, tokenizer=small_tokenizer, max_length=500
    )
    assert rows.column_names == ["input_ids", "labels", "attention_mask"]
    assert trained(small_tokenizer, rows) == [text + "<|im_end|>" for text in texts]
    if kind != "encoded dataset":
        mix = build_mix(*sources, eta=0.3, num_examples=50, seed=9)
        assert answers(mix) == texts
        flags = [[message["train"] for message in row["messages"]] for row in mix]
        wanted = {"agent": [False, False, False, True], "chat": [False, True]}
        assert flags == [wanted[text.split()[0]] for text in texts]


def test_several_sources_are_read_one_after_the_other(tmp_path: Path, chat: Path) -> None:
    more = write(tmp_path / "more.jsonl", [chat_record(n) for n in range(20, 25)])
    mix = build_mix(None, [chat, SourceSpec(str(more))], eta=0, num_examples=25)  # type: ignore[list-item]
    assert answers(mix) == expected(0, 25, 0, 0, 25)


def test_sources_that_eta_does_not_need_are_not_read(
    small_tokenizer: Any, agent: Path, chat: Path
) -> None:
    missing = "/nonexistent/file.jsonl"
    for tokenizer in (None, small_tokenizer):
        for eta, sources in ((0, (missing, chat)), (1, (agent, missing))):
            mix = build_mix(*sources, eta=eta, num_examples=3, tokenizer=tokenizer)
            assert len(mix) == 3
        for eta, source in ((0, (None, chat)), (1, (agent, []))):
            assert len(build_mix(*source, eta=eta, num_examples=3, tokenizer=tokenizer)) == 3
    encoding = Encoding(max_length=500, holdout=4)
    prepared = prepare(agent, chat, plan=Plan(1), tokenizer=small_tokenizer, encoding=encoding)
    # Kept, though this mix does not draw from them: what is encoded serves every eta.
    assert prepared.general is not None
    assert prepared.holdout is not None
    assert len(prepared.holdout) == 4
    assert prepared.report["holdout"] == {"rows": 4}


def test_settings_are_checked_before_anything_is_read(agent: Path, chat: Path) -> None:
    missing = "/nonexistent/file.jsonl"
    for sources, options, words in (
        ((missing, missing), {"eta": 1.5}, "eta: found 1.5"),
        ((missing, missing), {"num_examples": 0}, "num_examples: found 0"),
        ((missing, missing), {"block": 0}, "block: found 0"),
        ((None, missing), {}, "eta is 0.2, but there is no agent data"),
        ((missing, []), {}, "eta is 0.2, but there is no general data"),
    ):
        with pytest.raises(ConfigError, match=words):
            build_mix(*sources, **({"num_examples": 3} | options))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no agent data"):
        check_settings([], chat, Plan(0.2))


def test_the_longest_row_is_the_tokenizers_limit_unless_given(
    make_tokenizer: Callable[..., Any], agent: Path, chat: Path
) -> None:
    tokenizer = make_tokenizer()
    lengths = [len(ids) for ids in build_rows(agent, tokenizer)["input_ids"]]
    tokenizer.model_max_length = max(lengths) - 1
    with pytest.raises(DataError, match=r"agent: no trainable row is left .* 6 too_long"):
        build_mix(agent, chat, num_examples=5, tokenizer=tokenizer)
    mix = build_mix(agent, chat, num_examples=5, tokenizer=tokenizer, max_length=max(lengths))
    assert len(mix) == 5
    tokenizer.model_max_length = 10**30
    with pytest.raises(ConfigError, match="max_length: the tokenizer states no limit"):
        build_mix(agent, chat, num_examples=5, tokenizer=tokenizer)
    # An end token that is not eos, given as one text.
    tokenizer.eos_token = "</s>"
    options: dict[str, Any] = {"tokenizer": tokenizer, "max_length": 500}
    mix = build_mix(agent, chat, num_examples=5, end_of_turn="<|im_end|>", **options)
    assert all(text.endswith("<|im_end|>") for text in trained(tokenizer, mix))


def chats(numbers: list[int]) -> list[Conversation]:
    return [
        Conversation.create([Message("user", f"q {n}"), Message("assistant", f"a {n}", True)])
        for n in numbers
    ]


def test_held_out_rows_never_train(small_tokenizer: Any) -> None:
    def split(numbers: list[int], holdout: int = 5) -> tuple[list[str], list[str]]:
        encoding = Encoding(max_length=500, holdout=holdout)
        prepared = prepare(
            None, chats(numbers), plan=Plan(0), tokenizer=small_tokenizer, encoding=encoding
        )
        return trained(small_tokenizer, prepared.general), trained(
            small_tokenizer, prepared.holdout or []
        )

    once = list(range(30))
    rest, held = split(once * 2)
    assert len(held) == len(set(held)) == 5
    # Both copies of a row that is held out are gone, both of another stay.
    assert len(rest) == 50
    assert not set(rest) & set(held)
    # By content: neither order nor an addition elsewhere changes the choice by much.
    assert sorted(split(once[::-1])[1]) == sorted(held)
    assert rest[:25] == split(once)[0]
    assert len(set(split([*once, 99])[1]) & set(held)) >= 4
    # Not simply the first ones.
    assert sorted(held) != sorted(f"a {n}<|im_end|>" for n in range(5))
    assert split(once, 0) == ([f"a {n}<|im_end|>" for n in once], [])
    assert len(split([*once, *once], 29)[0]) == 2
    words = "general: holdout asks for 30 conversations, found 30 different ones"
    with pytest.raises(DataError, match=words):
        split(once * 2, 30)


def test_the_format_is_told_from_the_first_record_that_shows_it(tmp_path: Path) -> None:
    message = {"messages": [{"role": "user", "content": "q"}]}
    for name, records in (
        ("agentinstruct", [agent_record(1)]),
        ("sharegpt", [chat_record(1)]),
        ("messages", [message]),
        ("sharegpt", [3, {"x": 1}, {"conversations": None}, chat_record(1), message]),
    ):
        path = write(tmp_path / "a.jsonl", records)
        assert detect_format(SourceSpec(str(path))) == name
        assert resolve_source(path).spec.format == name
    assert resolve_source(SourceSpec(str(path), "messages", limit=3)).spec.format == "messages"
    assert resolve_source(SourceSpec(str(path), limit=3)).spec.limit == 3
    path = write(tmp_path / "odd.jsonl", [{"x": n} for n in range(80)])
    with pytest.raises(DataError, match=r"odd\.jsonl: format: none of the first 50 records"):
        detect_format(SourceSpec(str(path)))


def test_progress_and_report_account_for_everything(
    small_tokenizer: Any, agent: Path, chat: Path
) -> None:
    stages: dict[str, int] = {}

    def advance(stage: str, number: int) -> None:
        stages[stage] = stages.get(stage, 0) + number

    encoding = Encoding(max_length=500, holdout=2)
    prepared = prepare(
        agent,
        chat,
        plan=Plan(0.2),
        tokenizer=small_tokenizer,
        encoding=encoding,
        on_progress=advance,
    )
    assert stages == {
        "reading agent": 6,
        "encoding agent": 6,
        "reading general": 20,
        "encoding general": 20,
    }
    assert json.loads(json.dumps(prepared.report)) == prepared.report
    assert prepared.report["agent"]["tokens"]["kept"] == 6
    assert prepared.report["general"]["tokens"]["kept"] == 20
    assert prepared.report["general"]["sources"][0]["kept"] == 20
    assert prepared.general is not None
    assert len(prepared.general) == 18
    assert prepare_messages(agent, chat, plan=Plan(0.2)).report.keys() == {"agent", "general"}


@pytest.mark.parametrize("encode", [False, True])
@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([], "found no records, expected at least one"),
        ([{"conversations": []}] * 3, "none of 3 records can be used"),
        (["text"], "none of the first 1 records"),
        (None, "bad.jsonl"),
    ],
)
def test_an_unusable_file_is_named_in_one_line(
    small_tokenizer: Any, tmp_path: Path, chat: Path, records: Any, words: str, encode: bool
) -> None:
    bad = tmp_path / "bad.jsonl"
    if records is not None:
        write(bad, records)
    kind = SourceNotFoundError if records is None else DataError
    with pytest.raises(kind) as error:
        build_mix(bad, chat, num_examples=3, tokenizer=small_tokenizer if encode else None)
    message = str(error.value)
    assert str(bad) in message
    assert words in message
    assert "\n" not in message


def test_a_dataset_of_another_shape_is_refused(small_tokenizer: Any, chat: Path) -> None:
    from datasets import Dataset

    odd = Dataset.from_dict({"text": ["a"], "labels": [1]})
    bad = Dataset.from_dict({"messages": [[{"role": "robot", "content": "a"}]]})
    for tokenizer in (None, small_tokenizer):
        with pytest.raises(
            DataError, match="agent: columns: found text, labels, expected messages"
        ):
            build_mix(odd, chat, num_examples=3, tokenizer=tokenizer)
    with pytest.raises(DataError, match="agent: row 0: message 0: role: found 'robot'"):
        build_mix(bad, chat, num_examples=3, tokenizer=small_tokenizer)


def test_pieces_of_a_held_out_conversation_leave_training(small_tokenizer: Any) -> None:
    talks = [
        Conversation.create(
            [
                Message(role, f"{n} {turn} " + "word " * 30, trained=role == "assistant")
                for turn in range(6)
                for role in ("user", "assistant")
            ],
            source="chat",
            where=f"chat.jsonl:{n + 1}",
        )
        for n in range(12)
    ]
    encoding = Encoding(max_length=300, holdout=4)
    made = prepare(None, talks, plan=Plan(0), tokenizer=small_tokenizer, encoding=encoding)
    assert made.general is not None
    assert made.holdout is not None
    assert made.general_index is not None
    assert set(made.general_index["part"].to_pylist()) >= {1, 2}
    assert len(made.holdout) == 4
    kept = set(made.general_index["where"].to_pylist())
    assert len(kept) == 8
    held = {small_tokenizer.decode(row["input_ids"]).split("user\n")[1].split()[0]
            for row in made.holdout}  # fmt: skip
    assert {f"chat.jsonl:{int(n) + 1}" for n in held}.isdisjoint(kept)
    assert len(held) == 4


def test_messages_of_both_sides_have_the_same_columns(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    with_call = [turns[0], {"role": "assistant", "content": "", "tool_calls": [call]}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": with_call}) + "\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"messages": turns, "model": "gpt-4"}) + "\n")
    specs = [SourceSpec(str(tmp_path / f"{name}.jsonl"), "messages") for name in "ab"]
    mix = build_mix(specs[0], specs[1], eta=0.5, num_examples=4)
    assert sorted(row["model"] for row in mix) == ["", "", "gpt-4", "gpt-4"]
    prepared = prepare_messages(specs[0], specs[1], plan=Plan(0.5))
    assert prepared.agent_index is not None
    assert prepared.agent_index["where"].to_pylist() == ["a.jsonl:1"]
    weighted = [SourceSpec(spec.path, "messages", weight=1.0) for spec in specs]
    assert len(build_mix(None, weighted, eta=0, num_examples=6)) == 6
