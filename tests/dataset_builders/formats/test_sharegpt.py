from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.cleaning.steps import Cleaner, Cleaning
from dataset_builders.formats.sharegpt import convert
from dataset_builders.readers.building import BuildResult, LoadResult, build_from_files, collect
from dataset_builders.readers.files import Located, locate
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import SourceSpec, load_source

ROLES = {"h": "human", "g": "gpt", "s": "system", "b": "bing", "x": "someone"}


def record(letters: str) -> dict[str, Any]:
    """A record with one turn a letter; the turn's text is its index."""
    turns = [{"from": ROLES[letter], "value": str(n)} for n, letter in enumerate(letters)]
    return {"id": "a_0", "conversations": turns}


def build(located: Located, clean: Cleaning | None = None, limit: int | None = None) -> BuildResult:
    cleaned = partial(convert, cleaner=Cleaner(clean or Cleaning()))
    return build_from_files(located, cleaned, label="sharegpt", limit=limit)


def build_records(tmp_path: Path, records: list[Any], **options: Any) -> LoadResult:
    (tmp_path / "a.json").write_text(json.dumps(records, indent=2))
    return collect(build(locate(str(tmp_path / "a.json")), **options))


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
        (
            "ghghh",
            "12",
            {"strip_leading_assistant": 1, "join_user_turns": 1, "strip_trailing_user": 1},
        ),
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
        (
            {"conversations": [{"from": r, "value": ""} for r in ("human", "gpt")]},
            "no_assistant_turn",
        ),
        ({**record("hg"), "model": "\ud800"}, "not_unicode"),
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
    assert {"no_turns", "not_alternating", "no_assistant_turn"} <= set(report.dropped)
    assert {"unknown_role", "empty_turn"}.isdisjoint(report.dropped)
    assert {"remove_empty_turns", "join_user_turns", "remove_share_banners"} <= set(report.changed)
    odd = locate(str(shared / "data/sharegpt/sharegpt_v3_odd.json"))
    bare = collect(build(odd, clean=Cleaning.none())).report
    assert bare.read == bare.kept + sum(bare.dropped.values()) == 57
    assert not bare.changed
    assert bare.kept < report.kept


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


def talk(*texts: str, **keys: Any) -> dict[str, Any]:
    """A record of questions and answers in turn."""
    names = ("human", "gpt")
    turns = [{"from": names[n % 2], "value": text} for n, text in enumerate(texts)]
    return {"conversations": turns, **keys}


@pytest.mark.parametrize(
    ("texts", "kept", "changed"),
    [
        (("a", "\u200b", "b", "c"), ("a\n\nb", "c"), ("clean_characters", "remove_empty_turns")),
        (("a", "network error", "a", "c"), ("a", "c"), ("remove_failed_answers",)),
        (("a\n\nb", "", "a\n\nb", "", "c", "d"), ("a\n\nb\n\nc", "d"), ("join_user_turns",)),
        (("ls1 / 1", "c"), ("ls", "c"), ("remove_page_text",)),
        (("a", "b", " ", "\n"), ("a", "b"), ("remove_empty_turns",)),
    ],
)
def test_steps_work_together(
    tmp_path: Path, texts: tuple[str, ...], kept: tuple[str, ...], changed: tuple[str, ...]
) -> None:
    (item,), report = build_records(tmp_path, [talk(*texts)])
    assert tuple(message.content for message in item.messages) == kept
    assert set(changed) <= set(report.changed)


@pytest.mark.parametrize(
    ("step", "records", "reason"),
    [
        ("clean_characters", [talk("a", "b\u200b")], ""),
        ("remove_page_text", [talk("a1 / 1", "b")], ""),
        ("remove_failed_answers", [talk("a", "network error")], "no_assistant_turn"),
        ("remove_empty_turns", [talk("a", "\n", "b", "c")], ""),
        ("strip_trailing_user", [talk("a", "b", "c")], ""),
        ("join_user_turns", [record("hhg")], ""),
        ("strip_leading_assistant", [record("ghg")], ""),
        (
            "remove_share_banners",
            [
                {
                    "conversations": [
                        {
                            "from": "system",
                            "value": "*This conversation is shared from [**ChatHub**](x)*",
                        },
                        *talk("a", "b")["conversations"],
                    ]
                }
            ],
            "",
        ),
        ("drop_page_markup", [talk("a", 'E" role="presentation" style="position: relative;">E')],
         "page_markup"),
        ("drop_duplicates", [talk("a", "b"), talk("a", "b")], "duplicate"),
    ],
)  # fmt: skip
def test_each_step_can_be_switched_off(
    tmp_path: Path, step: str, records: list[Any], reason: str
) -> None:
    on = build_records(tmp_path, records)
    off = build_records(tmp_path, records, clean=Cleaning(**{step: False}))
    assert step in on.report.changed or reason in on.report.dropped
    assert step not in off.report.changed
    assert reason not in off.report.dropped
    assert on.conversations != off.conversations


def test_the_language_is_a_setting(tmp_path: Path) -> None:
    english = "Could you tell me how the weather in this town has been for the last few days?"
    german = "Wie wird das Wetter morgen in Hamburg, und brauche ich dort einen Regenschirm?"
    records = [talk(english, "It has been raining."), talk(german, "Es wird wohl regnen.")]
    for language, kept, dropped in (
        ("en", [english], {"language_de": 1}),
        ("de", [german], {"language_en": 1}),
        (None, [english, german], {}),
    ):
        result = build_records(tmp_path, records, clean=Cleaning(language=language))
        assert [item.messages[0].content for item in result.conversations] == kept
        assert result.report.dropped == dropped


def test_models_are_named_by_record_or_source(tmp_path: Path) -> None:
    records = [talk("a", "b", model="gpt4"), talk("c", "d"), talk("e", "f", model="Claude")]
    (tmp_path / "a.json").write_text(json.dumps(records))
    result = load_source(SourceSpec(str(tmp_path / "a.json"), "sharegpt"))
    assert [item.model for item in result.conversations] == ["gpt-4", "", "Claude"]
    assert result.report.models == {"gpt-4": 1, "unknown": 1, "Claude": 1}
    assert "written by gpt-4 1, unknown 1, Claude 1" in result.report.summary()
    spec = SourceSpec(str(tmp_path / "a.json"), "sharegpt", model="Default (GPT-3.5)")
    result = load_source(spec)
    assert [item.model for item in result.conversations] == ["gpt-4", "gpt-3.5", "Claude"]


def test_a_limit_counts_what_is_kept(tmp_path: Path) -> None:
    records = [talk("a", "b"), talk("a", "b"), talk("c", "d"), talk("e", "f")]
    result = build_records(tmp_path, records, limit=2)
    assert [item.messages[0].content for item in result.conversations] == ["a", "c"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"system": "You are a pirate."}, "unsupported_field"),
        ({"tools": "[]  "}, "unsupported_field"),
        ({"image": "a.png"}, "multimodal"),
    ],
)
def test_what_the_shape_cannot_hold_is_not_left_out_unsaid(
    tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    result = build_records(tmp_path, [{**talk("a", "b"), **fields}, talk("c", "d")])
    assert result.report.dropped == {reason: 1}
    # Told apart by itself, such a record is read with its system turn.
    (tmp_path / "b.jsonl").write_text(json.dumps({**talk("a", "b"), "system": "Be short."}))
    (conversation,) = load_source(resolve_source(str(tmp_path / "b.jsonl"))).conversations
    assert [message.role for message in conversation.messages] == ["system", "user", "assistant"]


def test_an_empty_answer_is_not_trained(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]
    good = [{"role": "developer", "content": "s"}, turns[0], {"role": "assistant", "content": "b"}]
    rows = [json.dumps({"messages": item}) for item in (turns, good)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    result = load_source(SourceSpec(str(tmp_path / "a.jsonl"), "messages"))
    assert result.report.dropped == {"empty_turn": 1}
    assert result.conversations[0].messages[0].role == "system"
