"""From records to figures: shares, means, weighted means and means of means."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluators.stats.aggregate import mean_of_means, summarise


def test_groups_count_the_same_whatever_their_size() -> None:
    records = [{"scores": {"a": 1.0}, "group": "x"}] + [
        {"scores": {"a": 0.0}, "group": "y"} for _ in range(9)
    ]
    assert summarise(records, macro=True)["a"].value == 0.5
    assert summarise(records)["a"].value == 0.1


def test_weights_are_those_of_a_mean_per_token() -> None:
    records = [{"scores": {"loss": 2.0}, "weight": 30}, {"scores": {"loss": 1.0}, "weight": 10}]
    assert summarise(records)["loss"].value == pytest.approx(1.75)


def test_groups_without_a_success_are_not_certain() -> None:
    metric = mean_of_means([[0.0], [0.0, 0.0]])
    assert metric.value == metric.low == 0.0
    assert metric.high > 0.3
    assert math.isinf(mean_of_means([[0.25], [0.5]]).stderr)


def test_the_uncertainty_of_a_mean_of_means_by_hand() -> None:
    """A success and a failure added to each of two groups: 3 of 5 and 1 of 4 for 2/3 and 0/2."""
    rates = mean_of_means([[1.0, 1.0, 0.0], [0.0, 0.0]])
    stderr = math.sqrt(0.6 * 0.4 / 5 + 0.25 * 0.75 / 4) / 2
    assert (rates.value, rates.stderr, rates.n) == (pytest.approx(1 / 3), pytest.approx(stderr), 5)
    half = 1.959964 * stderr
    assert (rates.low, rates.high) == (pytest.approx(0.425 - half), pytest.approx(0.425 + half))
    # Variances of the two means: 0.02 / 2 and 0.07 / 3.
    means = mean_of_means([[0.2, 0.4], [0.5, 0.6, 1.0]])
    stderr = math.sqrt(0.01 + 0.07 / 3) / 2
    assert (means.value, means.stderr) == (pytest.approx(0.5), pytest.approx(stderr))
    assert means.high - means.value == pytest.approx(1.959964 * stderr)
    # One item tells no variance: the other group's stands for it.
    assert mean_of_means([[0.2, 0.4], [0.5]]).stderr == pytest.approx(math.sqrt(0.02) / 2)


@pytest.mark.parametrize("rate", [0.05, 0.5])
@pytest.mark.parametrize("size", [3, 20])
def test_the_interval_covers(rate: float, size: int) -> None:
    random = np.random.default_rng(size)
    rates = [rate * 0.5, rate, rate * 1.5]
    truth, covered = sum(rates) / 3, 0
    for _ in range(1000):
        metric = mean_of_means([(random.random(size) < r).astype(float).tolist() for r in rates])
        covered += metric.low <= truth <= metric.high
    assert covered >= (930 if size > 3 else 900)
