from __future__ import annotations

import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.formats.agentinstruct import convert
from dataset_builders.readers.building import BuildResult, LoadResult, build_from_files, collect
from dataset_builders.readers.files import Located, locate, read_records

COUNTS = {"db": 430, "alfworld": 270, "kg": 16, "os": 15, "webshop": 14, "mind2web": 14}


def turn(role: str, value: Any, **loss: Any) -> dict[str, Any]:
    return {"from": role, "value": value, **loss}


HUMAN, ACK, GPT = (
    turn("human", "go", loss=None),
    turn("gpt", "Ok.", loss=False),
    turn("gpt", "Act: finish", loss=True),
)


def build(located: Located, **options: Any) -> BuildResult:
    return build_from_files(located, partial(convert, **options), label="agentinstruct")


def build_one(tmp_path: Path, record: Any, name: str = "db.jsonl") -> LoadResult:
    (tmp_path / name).write_text(json.dumps(record) + "\n")
    return collect(build(locate(str(tmp_path / name))))


def test_real_rows_are_kept_whole(shared: Path) -> None:
    parquet = collect(build(locate(str(shared / "data/agentinstruct_hub"))))
    lines = collect(build(locate(str(shared / "data/agentinstruct"))))
    assert parquet.conversations == lines.conversations
    assert parquet.report.read == parquet.report.kept == 759
    assert not parquet.report.dropped
    assert Counter(item.task for item in parquet.conversations) == COUNTS
    assert {item.source for item in parquet.conversations} == {"agentinstruct"}


def test_real_texts_and_flags_are_verbatim(shared: Path) -> None:
    located = locate(str(shared / "data/agentinstruct"))
    raw = [record.value for file in located.files for record in read_records(file)]
    built = list(build(located).conversations)
    for record, item in zip(raw, built, strict=True):
        assert item.id == record["id"]
        assert [message.content for message in item.messages] == [
            entry["value"] for entry in record["conversations"]
        ]
        assert [message.trained for message in item.messages] == [
            entry["loss"] is True for entry in record["conversations"]
        ]
    # Terminal escapes are part of what the model sees.
    assert any("\x1b" in m.content for item in built if item.task == "os" for m in item.messages)


def test_trained_turns_match_the_card(shared: Path) -> None:
    built = collect(build(locate(str(shared / "data/agentinstruct")))).conversations
    means = {
        task: sum(c.num_trained for c in built if c.task == task) / count
        for task, count in COUNTS.items()
    }
    # Card: db 2.06, alfworld 13.52, mind2web 1.00, over all rows; here over a part of them.
    assert means["db"] == pytest.approx(2.06, abs=0.05)
    assert means["alfworld"] == pytest.approx(13.52, abs=0.5)
    assert means["mind2web"] == 1


@pytest.mark.parametrize(
    ("record", "reason", "detail"),
    [
        (3, "not_an_object", "found int, expected an object"),
        ({"id": "db_1"}, "no_turns", "conversations: found none"),
        ({"conversations": []}, "no_turns", "found an empty list"),
        ({"conversations": {"from": "human"}}, "bad_turns", "found dict, expected a list"),
        ({"conversations": "x"}, "bad_turns", "found str, expected a list"),
        ({"conversations": [HUMAN, "x"]}, "bad_turns", "turn 1: found str, expected an object"),
        ({"id": "\ud800", "conversations": [HUMAN, GPT]}, "not_unicode", "id: lone surrogate"),
        ([{**HUMAN, "from": "system"}], "unknown_role", "turn 0: from: found 'system', expected"),
        ([{"value": "x"}], "unknown_role", "turn 0: from: found nothing, expected one of human"),
        (
            [HUMAN, turn("gpt", None, loss=True)],
            "content_not_text",
            "turn 1: value: found NoneType",
        ),
        ([HUMAN, {"from": "gpt"}], "content_not_text", "turn 1: value: found nothing"),
        ([HUMAN, turn("gpt", "\ud800", loss=True)], "not_unicode", "turn 1: value: lone surrogate"),
        (
            [HUMAN, turn("gpt", " \n", loss=True)],
            "empty_content",
            "turn 1: value: found no visible",
        ),
        ([HUMAN, turn("gpt", "x")], "loss_missing", "found nothing on a gpt turn, expected true"),
        ([HUMAN, turn("gpt", "x", loss=None)], "loss_missing", "this copy lost its flags"),
        (
            [HUMAN, turn("gpt", "x", loss="false")],
            "loss_not_boolean",
            "turn 1: loss: found 'false'",
        ),
        ([HUMAN, turn("gpt", "x", loss=1)], "loss_not_boolean", "found 1, expected true or false"),
        ([turn("human", "x", loss=True), GPT], "loss_on_human", "turn 0: loss: found true"),
        ([HUMAN, ACK], "no_trained_turn", "false on every gpt turn"),
        ([GPT], "not_alternating", "turn 0: found assistant, expected user"),
        ([HUMAN, GPT, GPT], "not_alternating", "turn 2: found assistant, expected user"),
        ([HUMAN, GPT, HUMAN], "ends_with_human", "turn 2: from: found human at the end"),
    ],
)
def test_drops(tmp_path: Path, record: Any, reason: str, detail: str) -> None:
    if isinstance(record, list) and isinstance(record[0], dict):
        record = {"id": "db_1", "conversations": record}
    report = build_one(tmp_path, record).report
    assert report.dropped == {reason: 1}
    assert report.samples[reason][0].startswith("db.jsonl:1: ")
    assert detail in report.samples[reason][0]


@pytest.mark.parametrize(
    ("id_", "task"), [("kg_17", "kg"), ("", "db"), ("strange", "db"), (None, "db"), (5, "db")]
)
def test_task_from_id_or_split(tmp_path: Path, id_: Any, task: str) -> None:
    record = {"id": id_, "conversations": [HUMAN, ACK, HUMAN, GPT]}
    name = "db-00000-of-00001.jsonl"
    (item,) = build_one(tmp_path, record, name).conversations
    assert item.task == task
    assert [message.trained for message in item.messages] == [False, False, False, True]


def without_flags(shared: Path, folder: Path) -> Path:
    """A copy of the real rows that lost its flags, as public copies have."""
    for file in sorted((shared / "data/agentinstruct").glob("*.jsonl")):
        with (folder / file.name).open("w") as copy:
            for record in read_records(file):
                turns = [
                    {"from": entry["from"], "value": entry["value"]}
                    for entry in record.value["conversations"]
                ]
                copy.write(json.dumps({"id": record.value["id"], "conversations": turns}) + "\n")
    return folder


def test_reconstructed_flags_equal_the_originals(tmp_path: Path, shared: Path) -> None:
    original = collect(build(locate(str(shared / "data/agentinstruct"))))
    copy = locate(str(without_flags(shared, tmp_path)))
    again = collect(build(copy, reconstruct=True))
    assert again.conversations == original.conversations
    replies = sum(m.role == "assistant" for c in original.conversations for m in c.messages)
    assert again.report.changed == {"reconstructed_loss": replies}
    assert f"reconstructed_loss {replies:,}" in again.report.summary()
    assert not original.report.changed
    # Not asked for, the flags stay missing, and nothing is kept.
    assert collect(build(copy)).report.dropped == {"loss_missing": 759}


def test_statistics_by_task_are_the_cards(shared: Path) -> None:
    report = collect(build(locate(str(shared / "data/agentinstruct")))).report
    assert {task: counts["conversations"] for task, counts in report.tasks.items()} == COUNTS
    flags = Counter(
        record.value["id"].partition("_")[0]
        for file in locate(str(shared / "data/agentinstruct")).files
        for record in read_records(file)
        for entry in record.value["conversations"]
        if entry["loss"]
    )
    assert {task: counts["trained_turns"] for task, counts in report.tasks.items()} == flags
    assert report.to_dict()["tasks"] == report.tasks


NEXT = turn("human", "A new question: x")


@pytest.mark.parametrize(
    ("id_", "turns", "expected"),
    [
        ("kg_1", [turn("human", "i"), turn("gpt", "a"), NEXT, turn("gpt", "b")], [0, 0, 0, 1]),
        ("webshop_1", [turn("human", "i"), ACK, NEXT, turn("gpt", "b")], None),  # has a flag
        ("db_1", [turn("human", "i"), turn("gpt", "b")], "first gpt turn of db: found 'b'"),
        ("os_1", [turn("human", "i"), turn("gpt", "b")], "found 0, expected one"),
        ("kg_1", [NEXT, turn("gpt", "a"), NEXT, turn("gpt", "b")], "found 2, expected one"),
        ("mind2web_1", [turn("human", "i"), turn("gpt", "b")], [0, 1]),
        (
            "mind2web_1",
            [turn("human", "i"), turn("gpt", "b"), turn("human", "i"), turn("gpt", "b")],
            "gpt turns of mind2web: found 2, expected one",
        ),
        ("x_1", [turn("human", "i"), turn("gpt", "b")], "task: found 'x', expected one of db"),
    ],
)
def test_reconstruction_goes_by_the_texts(
    tmp_path: Path, id_: str, turns: list[dict[str, Any]], expected: Any
) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": id_, "conversations": turns}) + "\n")
    found, report = collect(build(locate(str(tmp_path / "a.jsonl")), reconstruct=True))
    if isinstance(expected, list):
        assert [int(message.trained) for message in found[0].messages] == expected
    elif expected is None:
        assert report.dropped == {"loss_missing": 1}
    else:
        assert report.dropped == {"loss_rule_unmet": 1}
        assert expected in report.samples["loss_rule_unmet"][0]
