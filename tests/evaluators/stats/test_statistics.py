"""Uncertainty of the figures, against values worked out elsewhere."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.stats.intervals import mean, proportion, ratio


def test_wilson_interval_matches_published_values() -> None:
    # Newcombe (1998), table I: 81 of 263 and 0 of 20, Wilson without continuity correction.
    usual, none = proportion(81, 263), proportion(0, 20)
    assert (round(usual.low, 4), round(usual.high, 4)) == (0.2553, 0.3662)
    assert (round(none.low, 4), round(none.high, 4)) == (0.0, 0.1611)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_rate(counts: tuple[int, int]) -> None:
    metric = proportion(*counts)
    assert 0 <= metric.low <= metric.value + 1e-12
    assert metric.value - 1e-12 <= metric.high <= 1


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 3), (4, 3)])
def test_impossible_counts_are_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="found"):
        proportion(successes, n)


def test_mean_is_the_textbook_one() -> None:
    metric = mean([1.0, 2.0, 3.0, 4.0])
    assert metric.value == 2.5
    assert metric.stderr == pytest.approx(math.sqrt(5 / 3) / 2)


def test_ratio_weights_items_by_their_tokens() -> None:
    assert ratio([10.0, 1.0], [5.0, 1.0]).value == pytest.approx(11 / 6)


def test_ratio_error_matches_repeated_draws() -> None:
    drawn = random.Random(3)
    values: list[float] = []
    errors: list[float] = []
    for _ in range(400):
        tokens = [drawn.randint(5, 50) for _ in range(60)]
        losses = [count * drawn.gauss(2.0, 0.5) for count in tokens]
        metric = ratio(losses, [float(count) for count in tokens])
        values.append(metric.value)
        errors.append(metric.stderr)
    center = sum(values) / len(values)
    spread = math.sqrt(sum((value - center) ** 2 for value in values) / (len(values) - 1))
    assert sum(errors) / len(errors) == pytest.approx(spread, rel=0.15)


def test_one_item_has_no_finite_error() -> None:
    assert ratio([1.0], [2.0]).stderr == math.inf


def test_no_item_is_refused() -> None:
    with pytest.raises(ValueError, match="no item"):
        mean([])
