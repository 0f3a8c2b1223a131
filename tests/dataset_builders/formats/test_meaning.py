"""Fields that carry meaning: each reader honours them, or refuses the record and counts it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.conversation import Message
from dataset_builders.formats.meaning import FLAG_FIELDS, ROW_FIELDS, TURN_FIELDS
from dataset_builders.masks.chat_templates import template_message
from dataset_builders.readers.building import LoadResult
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import Format, SourceSpec, load_source
from dataset_builders.sources.rows import to_dataset

Rows = dict[Format, tuple[dict[str, Any], list[dict[str, Any]]]]

CALL = {"id": "c", "function": {"name": "f", "arguments": {}}}
ROW_VALUES: dict[str, Any] = {
    **dict.fromkeys(ROW_FIELDS, "some words"),
    **dict.fromkeys(("label", "kto_tag", "train", "training", "loss", "trainable"), False),
    **dict.fromkeys(("weight", "loss_weight", "sample_weight"), 0.5),
    **dict.fromkeys(("finish_reason", "stop_reason"), "max_tokens"),
    "tools": [{"name": "f"}],
    "chat_template_kwargs": {"enable_thinking": False},
}
TURN_VALUES: dict[str, Any] = {
    **dict.fromkeys(TURN_FIELDS, "words"),
    **dict.fromkeys(("train", "training", "loss", "trainable"), False),
    **dict.fromkeys(("weight", "loss_scale", "loss_weight", "mask", "loss_mask"), 0),
    **dict.fromkeys(("finish_reason", "stop_reason"), "length"),
    "masked": True,
    "tool_calls": [CALL],
    "train_detail": [{"begin_offset": 0, "end_offset": 1, "train": False}],
}


def shapes() -> Rows:
    """A record of each format and its answer that is looked at; a second answer stays."""
    rows: Rows = {}
    for format_, role, text in (("messages", "role", "content"), ("sharegpt", "from", "value")):
        names = ("user", "assistant") if format_ == "messages" else ("human", "gpt")
        turns = [
            {role: names[i % 2], text: f"A plain English sentence, number {i}."} for i in range(4)
        ]
        field = "messages" if format_ == "messages" else "conversations"
        rows[format_] = ({field: turns}, turns)  # type: ignore[index]
    turns = [
        {"from": "human", "loss": None, "value": "q"},
        {"from": "gpt", "loss": True, "value": "a"},
    ] * 2
    turns = [dict(turn) for turn in turns]
    rows["agentinstruct"] = ({"id": "db_1", "conversations": turns}, turns)
    turns = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "q"}] * 2
    completion = [dict(turn) for turn in turns[:3]]
    rows["prompt_completion"] = (
        {"prompt": [{"role": "user", "content": "q"}], "completion": completion},
        completion[::2],
    )
    rows["alpaca"] = ({"instruction": "q", "output": "a"}, [])
    items = [
        {"class_": "text_observation", "content": "q", "source": "user"},
        {"class_": "message_action", "content": "a"},
    ]
    items = [dict(item) for item in items * 2]
    rows["adp"] = ({"content": items}, items)
    return rows


def load(tmp_path: Path, record: Any, format_: Format) -> LoadResult:
    path = tmp_path / "a.jsonl"
    # A record that is kept in any case, so that what is dropped raises nothing.
    plain, _ = shapes()[format_]
    path.write_text(f"{json.dumps(record)}\n{json.dumps(plain)}\n")
    return load_source(SourceSpec(str(path), format_, clean=None))


def is_seen(tmp_path: Path, record: Any, format_: Format) -> bool:
    """Whether a changed record was dropped and counted, or became another conversation."""
    plain, changed = (load(tmp_path, each, format_) for each in (shapes()[format_][0], record))
    if changed.report.dropped - plain.report.dropped:
        return True
    first, other = plain.conversations[0], changed.conversations[0]
    counted = set(changed.report.changed) - set(plain.report.changed)
    return replace(first, id="", where="") != replace(other, id="", where="") or bool(counted)


@pytest.mark.parametrize("name", ROW_FIELDS)
def test_no_field_of_a_record_is_dropped_in_silence(tmp_path: Path, name: str) -> None:
    for format_, (row, _) in shapes().items():
        assert is_seen(tmp_path, {**row, name: ROW_VALUES[name]}, format_), format_


@pytest.mark.parametrize("name", TURN_FIELDS)
@pytest.mark.parametrize("number", [0, 1], ids=["question", "answer"])
def test_no_field_of_a_turn_is_dropped_in_silence(tmp_path: Path, name: str, number: int) -> None:
    for format_ in shapes():
        row, turns = shapes()[format_]
        if number < len(turns) and not (format_ == "agentinstruct" and name == "loss"):
            turn = turns[number]
            question = turn.get("role", turn.get("from", turn.get("class_"))) in (
                "user", "human", "text_observation",
            )  # fmt: skip
            turn[name] = TURN_VALUES[name]
            # A question is never trained: a flag that says so changes nothing.
            if not (question and name in FLAG_FIELDS):
                assert is_seen(tmp_path, row, format_), format_


@pytest.mark.parametrize("format_", shapes())
def test_metadata_and_neutral_values_are_ignored(tmp_path: Path, format_: Format) -> None:
    row, turns = shapes()[format_]
    for turn in turns:
        turn.update(
            timestamp=3, images=[], thinking=None, name="", channel="final", finish_reason="stop"
        )
    row["label"] = "sports" if format_ == "prompt_completion" else 0
    row.update(score=0.5, images=None, weight=1, loss=0.0, reasoning="on", prompt_id="x")
    result = load(tmp_path, row, format_)
    assert not result.report.dropped - load(tmp_path, shapes()[format_][0], format_).report.dropped


def test_flags_after_the_first_records_are_honoured(tmp_path: Path) -> None:
    def talk(number: int, **flag: Any) -> dict[str, Any]:
        words = f"{number} is the number that we talk about in this conversation"
        return {
            "conversations": [
                {"from": "human", "value": f"Please say something wrong: {words}."},
                {"from": "gpt", "value": f"This is the wrong answer, {words}.", **flag},
                {"from": "human", "value": f"And now something right, please, as {words}."},
                {"from": "gpt", "value": f"This is the right answer, {words}."},
            ]
        }

    flags = ({"train": False}, {"loss": False}, {"weight": 0}, {"masked": True})
    rows = [talk(number) for number in range(60)]
    rows += [talk(60 + number, **flag) for number, flag in enumerate(flags)]
    rows += [talk(70, train=False)]
    rows[-1]["conversations"][3]["train"] = False
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = resolve_source(tmp_path / "a.jsonl").spec
    assert spec.format == "sharegpt"
    result = load_source(replace(spec, clean=None))
    late = [item for item in result.conversations if item.num_trained == 1]
    assert len(late) == 4
    for item in late:
        assert [message.trained for message in item.messages] == [False, False, False, True]
    assert result.report.dropped["no_trained_turn"] == 1


def test_the_name_of_a_tool_reaches_template_and_data_set(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": [{**CALL, "id": 0}]},
        {"role": "tool", "content": "r", "name": "f", "tool_call_id": 0},
        {"role": "assistant", "content": "a", "name": "assistant"},
    ]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": turns}))
    (found,) = load_source(resolve_source(tmp_path / "a.jsonl")).conversations
    assert found.messages[1].tool_calls[0].id == "0"
    assert found.messages[2] == Message("tool", "r", tool_call_id="0", name="f")
    assert template_message(found.messages[2])["name"] == "f"
    assert [turn["name"] for turn in to_dataset([found])[0]["messages"]] == ["", "", "f", ""]


@pytest.mark.parametrize("label", [False, 0, "false"])
def test_labels_of_pairs_are_those_of_kto(tmp_path: Path, label: Any) -> None:
    row = shapes()["prompt_completion"][0]
    report = load(tmp_path, {**row, "label": label}, "prompt_completion").report
    assert report.dropped == {"undesirable": 1}
    for good in (True, 1, "true", None):
        assert not load(tmp_path, {**row, "label": good}, "prompt_completion").report.dropped


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"label": False}, "undesirable"),
        ({"chosen": [1], "rejected": [2]}, "preference"),
        ({"weight": 0}, "unsupported_field"),
        ({"finish_reason": "length"}, "cut_turn"),
    ],
)
def test_refusals_have_names_of_their_own(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    report = load(tmp_path, {**shapes()["messages"][0], **row}, "messages").report
    assert report.dropped == {reason: 1}
    assert report.samples[reason][0].startswith(f"a.jsonl:1: {next(iter(row))}: ")
