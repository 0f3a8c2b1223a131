from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.building import LoadResult, collect
from dataset_builders.files import locate
from dataset_builders.sharegpt import build

ROLES = {"h": "human", "g": "gpt", "s": "system", "b": "bing", "x": "someone"}


def record(letters: str) -> dict[str, Any]:
    """A record with one turn a letter; the turn's text is its index."""
    turns = [{"from": ROLES[letter], "value": str(n)} for n, letter in enumerate(letters)]
    return {"id": "a_0", "conversations": turns}


def build_records(tmp_path: Path, records: list[Any]) -> LoadResult:
    (tmp_path / "a.json").write_text(json.dumps(records, indent=2))
    return collect(build(locate(str(tmp_path / "a.json"))))


@pytest.mark.parametrize(
    ("letters", "kept", "changed"),
    [
        ("hg", "01", {}),
        ("hghb", "0123", {}),
        ("shg", "012", {}),
        ("ghg", "12", {"strip_leading_assistant": 1}),
        ("ggbhg", "34", {"strip_leading_assistant": 3}),
        ("sghg", "023", {"strip_leading_assistant": 1}),
        ("hgh", "01", {"strip_trailing_user": 1}),
        ("ghghh", "12", {"strip_leading_assistant": 1, "strip_trailing_user": 2}),
    ],
)
def test_repairs(tmp_path: Path, letters: str, kept: str, changed: dict[str, int]) -> None:
    (item,), report = build_records(tmp_path, [record(letters)])
    assert "".join(message.content for message in item.messages) == kept
    assert report.changed == changed
    assert [m.trained for m in item.messages] == [m.role == "assistant" for m in item.messages]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ([], "not_an_object"),
        ({"id": "a"}, "no_turns"),
        (record(""), "no_turns"),
        (record("hx"), "unknown_role"),
        ({"conversations": [{"from": "human", "value": 1}]}, "content_not_text"),
        ({"conversations": [{"from": "human", "value": "\udfff"}]}, "not_unicode"),
        ({"conversations": [{"from": r, "value": ""} for r in ("human", "gpt")]}, "empty_turn"),
        (record("hhg"), "not_alternating"),
        (record("hggh"), "not_alternating"),
        (record("hgsg"), "not_alternating"),
        (record("h"), "no_assistant_turn"),
        (record("g"), "no_assistant_turn"),
        (record("s"), "no_assistant_turn"),
        (record("gh"), "no_assistant_turn"),
    ],
)
def test_drops(tmp_path: Path, raw: Any, reason: str) -> None:
    result = build_records(tmp_path, [raw])
    assert result.report.dropped == {reason: 1}
    assert not result.report.changed
    assert result.report.samples[reason][0].startswith("a.json: item 1: ")


def test_real_sample(shared: Path) -> None:
    result = collect(build(locate(str(shared / "data/sharegpt/sharegpt_v3_sample.json"))))
    report = result.report
    assert report.read == 700
    assert not report.lost
    assert report.kept == len(result.conversations) > 650
    for item in result.conversations:
        roles = [m.role for m in item.messages if m.role != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(m.content.strip() for m in item.messages)


def test_real_odd_records_are_all_accounted_for(shared: Path) -> None:
    report = collect(build(locate(str(shared / "data/sharegpt/sharegpt_v3_odd.json")))).report
    assert report.read == 57
    assert report.kept + sum(report.dropped.values()) == 57
    assert {"no_turns", "empty_turn", "not_alternating", "no_assistant_turn"} <= set(report.dropped)
    assert "unknown_role" not in report.dropped


def test_real_sample_cut_short(tmp_path: Path, shared: Path) -> None:
    text = (shared / "data/sharegpt/sharegpt_v3_sample.json").read_text("ascii")
    ends, decoder = [], json.JSONDecoder()
    position = text.index("{")
    while position >= 0:
        ends.append(decoder.raw_decode(text, position)[1])
        position = text.find("{", ends[-1])
    whole = build_all(tmp_path, text)
    for cut in (4096, 1_000_000, 2**21, ends[350], ends[350] + 1, len(text) - 3):
        result = build_all(tmp_path, text[:cut])
        complete = [end for end in ends if end <= cut]
        assert result.report.read == len(complete)
        assert result.conversations == whole.conversations[: len(result.conversations)]
        (lost,) = result.report.lost
        assert lost.startswith(f"cut.json: {cut_away(text, complete, cut):,} characters lost")


def cut_away(text: str, complete: list[int], cut: int) -> int:
    return len(text[complete[-1] if complete else 1 : cut].lstrip(", \n"))


def build_all(tmp_path: Path, text: str) -> LoadResult:
    (tmp_path / "cut.json").write_text(text)
    return collect(build(locate(str(tmp_path / "cut.json"))))
