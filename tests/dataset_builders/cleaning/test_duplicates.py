from __future__ import annotations

import random
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.cleaning.duplicates import (
    SHINGLE,
    ExactDuplicates,
    NearDuplicates,
    shingle_hashes,
)
from dataset_builders.errors import ConfigError
from dataset_builders.readers.building import RecordDroppedError

WORDS = [f"word{number}" for number in range(3000)]


def text(seed: int, length: int = 600) -> list[str]:
    return random.Random(seed).choices(WORDS, k=length)


def shingles(words: list[str]) -> set[tuple[str, ...]]:
    lower = [word.lower() for word in words]
    return {tuple(lower[n : n + SHINGLE]) for n in range(len(lower) - SHINGLE + 1)}


def is_refused(near: NearDuplicates, words: list[str], where: str = "x") -> bool:
    try:
        near.check(" ".join(words), where)
    except RecordDroppedError:
        return True
    return False


def test_an_exact_duplicate_names_the_first() -> None:
    exact = ExactDuplicates()
    exact.check([("user", "a"), ("assistant", "b")], "f:1")
    exact.check([("user", "ab"), ("assistant", "")], "f:2")
    exact.check([("user", "a assistant 1 b")], "f:3")
    with pytest.raises(RecordDroppedError, match=r"duplicate: same turns as f:1"):
        exact.check([("user", "a"), ("assistant", "b")], "f:4")
    with pytest.raises(RecordDroppedError, match=r"same turns as f:1"):
        exact.check([("user", "a"), ("assistant", "b")], "f:1")


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b", "aa", "ab", "é", "A"]), max_size=12),
    st.lists(st.sampled_from([" ", "\n", "\t\r\n  "]), min_size=13, max_size=13),
)
def test_hashes_tell_the_same_sequences_apart_as_words_do(
    words: list[str], gaps: list[str]
) -> None:
    joined = "".join(f"{gap}{word}" for gap, word in zip(gaps, words, strict=False)) + gaps[-1]
    hashes = shingle_hashes(joined)
    assert len(hashes) == max(0, len(words) - SHINGLE + 1)
    assert len(np.unique(hashes)) == len(shingles(words))
    np.testing.assert_array_equal(hashes, shingle_hashes(" ".join(words).upper().lower()))


@pytest.mark.parametrize("share", [0.5, 0.65, 0.95, 0.97])
def test_the_threshold_is_that_of_the_true_similarity(share: float) -> None:
    near = NearDuplicates(0.8)
    refused, similarity = [], []
    for seed in range(60):
        first = text(seed)
        cut = int(len(first) * share)
        second = first[:cut] + text(1000 + seed, len(first) - cut)
        assert not is_refused(near, first)
        refused.append(is_refused(near, second))
        a, b = shingles(first), shingles(second)
        similarity.append(len(a & b) / len(a | b))
    rate = np.mean(refused)
    # Standard error 0.035 at most: these similarities are 2.8 of them and more away.
    assert rate <= 0.02 if max(similarity) < 0.7 else rate >= 0.98
    assert not any(0.7 < value < 0.8 for value in similarity)


def test_the_refusal_names_the_similarity_and_the_first() -> None:
    near = NearDuplicates(0.8)
    words = text(1)
    near.check(" ".join(words), "f:1")
    near.check(" ".join(text(2)), "f:2")
    with pytest.raises(RecordDroppedError) as raised:
        near.check("  \n".join(words[:-6]).upper(), "f:3")
    found = re.search(r"about (\d+)% similar to f:1 in 5-word runs", str(raised.value))
    assert found
    assert 90 <= int(found[1]) <= 100


def test_short_texts_pass() -> None:
    near = NearDuplicates(0.8)
    assert not any(is_refused(near, text(3, length)) for length in (0, 1, 4, 5, 40, 53, 53))
    assert not is_refused(near, text(3, 54))
    assert is_refused(near, text(3, 54))


def test_a_refused_text_is_not_compared_to() -> None:
    near = NearDuplicates(0.8)
    words = text(4, 1000)
    steps = [words[start : start + 600] for start in (0, 50, 100, 150)]
    for before, after in pairwise(steps):
        a, b = shingles(before), shingles(after)
        assert len(a & b) / len(a | b) > 0.8
    assert [is_refused(near, step) for step in steps] == [False, True, False, True]


@pytest.mark.parametrize("threshold", [0, -1, 1.5, float("nan")])
def test_a_similarity_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(ConfigError, match="near_duplicates: found"):
        NearDuplicates(threshold)


@pytest.mark.parametrize("length", [2, 9, 80])
def test_different_answers_about_one_document_stay(length: int) -> None:
    near = NearDuplicates(0.8)
    document = text(5, 900)
    for seed in range(30):
        answer = " ".join(text(100 + seed, length))
        near.check(" ".join([*document, str(seed), answer]), f"f:{seed}", answer)
    # A copy of any of them, not of the first alone, is refused.
    for seed in (0, 17, 29):
        answer = " ".join(text(100 + seed, length))
        with pytest.raises(RecordDroppedError, match=f"similar to f:{seed} in"):
            near.check(" ".join([*document, "again", answer]), "x", answer.upper())
