"""ROUGE-L, near duplicates, and what is kept apart from the evaluation."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builders.errors import MissingExtraError
from dataset_builders.instructions.guard import SHARED, SIMILAR, EvaluationGuard
from dataset_builders.instructions.similarity import InstructionPool, words

pytest.importorskip("rapidfuzz", reason="pip install 'agenttuning-plugin[collect]'")

texts = st.lists(
    st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "In", "IN"]), max_size=12
).map(" ".join)


def longest_common(first: list[str], second: list[str]) -> int:
    """The table that every textbook has."""
    row = [0] * (len(second) + 1)
    for left in first:
        above, row = row, [0]
        for place, right in enumerate(second):
            best = above[place] + 1 if left == right else max(above[place + 1], row[place])
            row.append(best)
    return row[-1]


def rouge_l(first: str, second: str) -> float:
    left, right = words(first), words(second)
    total = len(left) + len(right)
    return 2 * longest_common(left, right) / total if left and right else 0.0


@given(texts, texts)
def test_rouge_l_is_the_f_measure_of_the_textbook(first: str, second: str) -> None:
    assert InstructionPool([first], 1e-9).nearest(second)[0] == pytest.approx(
        rouge_l(first, second)
    )


@given(st.lists(texts, max_size=6), texts, st.sampled_from([0.3, 0.7, 1.0]))
def test_the_nearest_is_found_whatever_is_passed_over(
    known: list[str], text: str, threshold: float
) -> None:
    pool = InstructionPool(known, threshold)
    best = max((rouge_l(each, text) for each in known), default=0.0)
    score, nearest = pool.nearest(text)
    assert score == pytest.approx(best if best >= threshold else 0.0)
    assert not nearest or rouge_l(nearest, text) == pytest.approx(score)


def test_seventy_percent_is_where_a_duplicate_begins() -> None:
    pool = InstructionPool(["a b c d e f g x y z"])
    assert pool.nearest("a b c d e f g 1 2 3")[0] == pytest.approx(0.7)
    assert pool.nearest("a b c d e f 9 1 2 3") == (0.0, "")


def test_without_rapidfuzz_the_install_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidfuzz.distance", None)
    with pytest.raises(MissingExtraError, match=r"rapidfuzz.*agenttuning-plugin\[collect\]"):
        InstructionPool()


QUESTION = (
    "How many of the ships that left the harbour of Brest before noon carried any grain at all?"
)


def test_the_guard_knows_likeness_and_shared_text() -> None:
    guard = EvaluationGuard([QUESTION, "List the names."])
    assert guard.reason(QUESTION.upper()) == SIMILAR
    around = "You work for a shipping office that keeps a book of arrivals, cargo and crews. " * 3
    assert guard.reason(f"{around}{QUESTION} {around}") == SHARED
    assert guard.reason("Which captain was born first?") == ""
    assert EvaluationGuard([]).reason(QUESTION) == ""
