"""The contamination check against a brute-force reading of its rule, and planted copies."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.contamination import check as module
from dataset_builders.contamination import ngram_matching
from dataset_builders.contamination.check import contamination
from dataset_builders.contamination.plain_texts import Text, TextReport, read_texts
from dataset_builders.errors import ConfigError, DataError, SourceNotFoundError

WORDS = [f"w{number}" for number in range(5000)]


def words(seed: int, length: int) -> list[str]:
    return random.Random(seed).sample(WORDS, length)


def texts(*lists: list[str], name: str = "f") -> list[Text]:
    return [Text(f"{name}:{number}", " ".join(item)) for number, item in enumerate(lists, 1)]


def brute_force(
    sample: list[str], records: list[list[str]], n: int, skips: int
) -> tuple[set[int], int]:
    """Contaminated places of a sample and its longest span, by trying every pair and length."""
    covered: set[int] = set()
    longest = 0
    for record in records:
        for i in range(len(sample)):
            for j in range(len(record)):
                for length in range(n + 1, min(len(sample) - i, len(record) - j) + 1):
                    same = [sample[i + k] == record[j + k] for k in range(length)]
                    if all(same[:n]) and same[-1] and same.count(False) <= skips:
                        covered.update(range(i, i + length))
                        longest = max(longest, length)
    return covered, longest


FEW = st.lists(st.sampled_from(["a", "b", "c"]), max_size=14)


@settings(deadline=None, max_examples=300)
@given(
    samples=st.lists(FEW, min_size=1, max_size=3),
    records=st.lists(FEW, min_size=1, max_size=4),
    n=st.integers(1, 4),
    skips=st.integers(0, 3),
)
def test_brute_force_agrees(
    samples: list[list[str]], records: list[list[str]], n: int, skips: int
) -> None:
    report = contamination(texts(*records), texts(*samples), longer_than=n, skips=skips)
    for sample, found in zip(samples, report.samples, strict=True):
        covered, longest = brute_force(sample, records, n, skips)
        assert (found.tokens, found.contaminated) == (len(sample), len(covered))
        assert (found.match.tokens if found.match else 0) == longest


@settings(deadline=None, max_examples=60)
@given(
    samples=st.lists(FEW, min_size=1, max_size=3),
    records=st.lists(FEW, min_size=1, max_size=6),
)
def test_neither_batches_nor_windows_change_the_result(
    samples: list[list[str]], records: list[list[str]]
) -> None:
    whole = contamination(texts(*records), texts(*samples), longer_than=2, skips=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BATCH_TOKENS", 5)
        patch.setattr(ngram_matching, "_WINDOWS", (1, 2))
        patch.setattr(ngram_matching, "_MAX_PAIRS", 2)
        patch.setattr(ngram_matching, "_FILTER_BITS", 3)
        parts = contamination(texts(*records), texts(*samples), longer_than=2, skips=2)
    assert parts.to_dict()["found"] == whole.to_dict()["found"]


@pytest.mark.parametrize("changed", range(7))
def test_a_copy_with_up_to_four_tokens_changed_is_found(changed: int) -> None:
    sample = words(1, 39)
    copy = list(sample)
    for number in range(changed):
        copy[12 + 4 * number] = "other"
    record = [*words(2, 30), *copy, *words(3, 30)]
    (found,) = contamination(texts(words(4, 50), record), texts(sample)).samples
    # Of five changes the last, at place 28, ends the span; only 10 more tokens follow it.
    assert found.contaminated == (39 if changed <= 4 else 28)
    assert found.match is not None
    assert found.match.record == "f:2"
    assert found.match.tokens == found.contaminated
    assert found.match.start == 0


@pytest.mark.parametrize(
    ("places", "contaminated"),
    [
        ((), 24),
        ((3,), 20),  # nothing but the 20 tokens after it
        ((10,), 24),
        ((9, 13), 0),  # no 10 in a row but the last 10, of which none follows
        ((23,), 23),  # no mismatch at the end
        ((20, 21, 22), 24),
        ((20, 21, 22, 23), 20),
        ((0, 11), 23),
        ((0, 12), 23),
    ],
)
def test_where_a_change_matters(places: tuple[int, ...], contaminated: int) -> None:
    sample = words(5, 24)
    copy = ["other" if place in places else word for place, word in enumerate(sample)]
    (found,) = contamination(texts(copy), texts(sample)).samples
    assert found.contaminated == contaminated


def test_ten_tokens_are_not_enough_and_eleven_are() -> None:
    sample = words(6, 40)
    for length, contaminated in ((10, 0), (11, 11)):
        record = [*words(7, 9), *sample[5 : 5 + length], "end"]
        (found,) = contamination(texts(record), texts(sample)).samples
        assert found.contaminated == contaminated


def test_spans_do_not_cross_records_or_samples() -> None:
    sample = words(8, 24)
    (found,) = contamination(texts(sample[:10], sample[10:20], sample[20:]), texts(sample)).samples
    assert found.contaminated == 0
    halves = contamination(texts(sample), texts(sample[:10], sample[10:])).samples
    assert [half.contaminated for half in halves] == [0, 14]


def test_inserted_tokens_end_a_span() -> None:
    sample = words(9, 40)
    (found,) = contamination(texts([*sample[:20], "inserted", *sample[20:]]), texts(sample)).samples
    assert found.contaminated == 40
    assert found.match is not None
    assert found.match.tokens == 20


def test_groups_are_llama_2s() -> None:
    sample = words(10, 100)
    shares = (0, 19, 20, 79, 80, 100)
    samples = [[*sample[:k], *words(100 + k, 100 - k)] for k in shares]
    fresh = [[word if n < k else f"{word}x{k}" for n, word in enumerate(item)]
             for k, item in zip(shares, samples, strict=True)]  # fmt: skip
    report = contamination(texts(sample), texts(*fresh))
    assert [found.share for found in report.samples] == [k / 100 for k in shares]
    assert report.counts() == {
        "samples": 6, "dirty": 2, "not_dirty": 4, "clean": 2, "not_clean": 4, "too_short": 0
    }  # fmt: skip


def test_words_ignore_case_and_punctuation_and_name_their_place() -> None:
    sample = "The quick brown fox jumps over the lazy dog, and then it sleeps: well."
    record = 'Zuerst: ÄÖÜ "THE QUICK brown-fox jumps (over) the lazy dog and then it sleeps well"!'
    report = contamination([Text("r:1", record)], [Text("s:1", sample), Text("s:2", "too short")])
    found = report.samples[0]
    assert found.share == 1
    assert found.match is not None
    start = found.match.record_start
    assert record[start:].startswith("THE QUICK")
    assert found.match.text == record[start : start + len(found.match.text)]
    assert found.match.text.endswith("sleeps well")
    assert report.counts()["too_short"] == 1
    assert (report.unit, report.training_tokens, report.training_records) == ("word", 16, 1)


def test_letters_that_fold_into_two_keep_their_place() -> None:
    text = "İstanbul STRAẞE " + " ".join(words(11, 12))
    (found,) = contamination([Text("r", f"x İ {text}")], [Text("s", text)]).samples
    assert (found.tokens, found.contaminated) == (14, 14)
    assert found.match is not None
    assert found.match.record_start == 4


def test_a_tokenizers_tokens(small_tokenizer: Any) -> None:
    sample = "Permission is hereby granted to whoever reads this sentence"
    record = f"<|im_start|>Before it. {sample}. After it."
    report = contamination(
        [Text("r:1", record)], [Text("s:1", f" {sample}")], tokenizer=small_tokenizer
    )
    (found,) = report.samples
    assert report.unit == "token"
    assert found.share == 1
    assert found.match is not None
    assert found.match.text.strip() == sample
    assert found.tokens == len(small_tokenizer(f" {sample}", add_special_tokens=False).input_ids)


def test_instructions_that_all_share_cost_no_more_than_their_left_ends() -> None:
    """All pairs of 200 records, 100 samples and 300 places would be six million seeds."""
    instruction = words(12, 300)
    records = texts(*[[*instruction, *words(200 + n, 20)] for n in range(200)])
    samples = texts(*[[*instruction, *words(500 + n, 20)] for n in range(100)])
    seeds = 0
    extend = ngram_matching.NgramIndex._extend

    def counting(self: Any, training: Any, starts: Any, places: Any) -> Any:
        nonlocal seeds
        seeds += len(starts)
        return extend(self, training, starts, places)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngram_matching.NgramIndex, "_extend", counting)
        report = contamination(records, samples)
    assert all(found.contaminated >= 300 for found in report.samples)
    assert seeds < 2 * 200 * 100


@pytest.mark.parametrize(("training", "evaluation"), [(["a"], []), ([], ["a"])])
def test_nothing_to_compare_is_an_error(training: list[str], evaluation: list[str]) -> None:
    with pytest.raises(DataError, match="found no"):
        contamination(
            (Text("r", text) for text in training), (Text("s", text) for text in evaluation)
        )


def test_numbers_out_of_range() -> None:
    for options in ({"longer_than": 0}, {"skips": -1}):
        with pytest.raises(ConfigError, match="longer_than, skips: found"):
            contamination([], [], **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="slow"):
        contamination([], [], tokenizer=object())


def read(path: Path, *fields: str) -> tuple[list[Text], TextReport]:
    report = TextReport(str(path))
    return list(read_texts(str(path), report, fields)), report


def test_texts_of_every_shape(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": None},
                      {"content": [{"type": "text", "text": "two"}, {"type": "image"}]}]},
        {"id": "x", "conversations": [{"from": "human", "value": "three"}, 4]},
        {"question": "q", "choices": ["a", ["b", {"c": "d"}]], "answer": 3, "no": None},
        "bare",
        {"n": 1},
        [],
    ]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{\n")
    found, report = read(tmp_path / "a.jsonl")
    assert found == [
        Text("a.jsonl:1", "one\ntwo"),
        Text("a.jsonl:2", "three"),
        Text("a.jsonl:3", "q\na\nb\nd"),
        Text("a.jsonl:4", "bare"),
    ]
    assert report.to_dict() == {
        "source": str(tmp_path / "a.jsonl"), "read": 7, "skipped": {"no_text": 2, "bad_json": 1},
        "lost": [],
    }  # fmt: skip
    found, report = read(tmp_path / "a.jsonl", "choices", "question")
    assert found == [Text("a.jsonl:3", "a\nb\nd\nq")]
    assert report.read == len(found) + report.skipped.total()


def test_a_folder_of_tables(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text('"Is it, so?",yes,"no\nnever",A\n', encoding="utf-8-sig")
    (tmp_path / "a.csv").write_text("x,y\n")
    for place in (tmp_path, tmp_path / "b.csv"):
        found, _ = read(place)
        assert found[-1] == Text("b.csv:2", "Is it, so?\nyes\nno\nnever\nA")
    (tmp_path / "c.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"c\.csv: after line 0: .*expected UTF-8 CSV"):
        read(tmp_path / "c.csv")


def test_sources_without_a_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"n": 1}\n{"n": 2}\n')
    with pytest.raises(DataError, match=r"found 2 records, none with text \(no_text 2\)"):
        read(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="none with text in field question"):
        read(tmp_path / "a.jsonl", "question")
    (tmp_path / "b.jsonl").write_text("")
    with pytest.raises(DataError, match="found no record"):
        read(tmp_path / "b.jsonl")
    with pytest.raises(SourceNotFoundError):
        read(tmp_path / "none.jsonl")


def test_deep_nesting_is_no_recursion(tmp_path: Path) -> None:
    value: Any = "deep"
    for _ in range(300):
        value = {"a": [value]}
    (tmp_path / "a.jsonl").write_text(json.dumps(value))
    assert read(tmp_path / "a.jsonl")[0] == [Text("a.jsonl:1", "deep")]


def test_agentinstructs_database_tasks_are_not_agentbenchs(shared: Path) -> None:
    """Of AgentBench's 300 database tasks none is dirty by the description alone."""
    training, _ = read(shared / "data/agentinstruct/db.jsonl")
    evaluation, _ = read(shared / "data/dbbench/standard.jsonl", "description", "add_description")
    report = contamination(training, evaluation)
    assert len(report.samples) == 300
    again = contamination(training, [*evaluation[:5], training[7]])
    assert again.samples[5].share == 1
    assert again.samples[5].match is not None
    assert again.samples[5].match.record == training[7].where
    assert again.samples[:5] == report.samples[:5]


def test_gsm8ks_test_questions_are_not_in_its_training_half(shared: Path) -> None:
    training, _ = read(shared / "data/gsm8k/train_first200.jsonl")
    evaluation, _ = read(shared / "data/gsm8k/test_first1000.jsonl")
    report = contamination(training, evaluation)
    assert report.counts()["dirty"] == 0
    assert np.mean([found.share for found in report.samples]) < 0.05


@pytest.mark.parametrize("name", ["messages", "conversations"])
@pytest.mark.parametrize(
    ("turn", "text"),
    [
        ({"role": "user", "content": "a b"}, "a b"),
        ({"from": "gpt", "value": "a b"}, "a b"),
        ({"role": "user", "content": [{"type": "text", "text": "a b"}, {"type": "image"}]}, "a b"),
        ({"role": "assistant", "content": "c", "reasoning_content": "a b"}, "c\na b"),
        (
            {"role": "assistant", "content": None,
             "tool_calls": [{"function": {"name": "f", "arguments": '{"q": "a b"}'}}]},
            'f\n{"q": "a b"}',
        ),
    ],
)  # fmt: skip
def test_all_that_a_turn_says_is_compared(
    tmp_path: Path, name: str, turn: dict[str, Any], text: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({name: [turn]}) + "\n")
    assert [found.text for found in read_texts(str(path), TextReport("a"))] == [text]
