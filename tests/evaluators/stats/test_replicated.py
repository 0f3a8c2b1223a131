"""Means and differences over seeds and items: cases by hand, coverage and size by simulation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from evaluators.stats.paired import paired_change
from evaluators.stats.replicated import holm, replicated_change, replicated_mean

Record = dict[str, Any]


def run(values: Any, score: str = "success", **more: Any) -> list[Record]:
    return [
        {"item": f"t{n}", "scores": {score: float(value)}, **{k: v[n] for k, v in more.items()}}
        for n, value in enumerate(values)
    ]


def test_the_variance_is_the_sum_of_that_between_runs_and_that_between_items() -> None:
    values = np.array([[1.0, 2.0, 4.0], [2.0, 5.0, 4.0]])
    found = replicated_mean([run(row, "loss") for row in values], "loss")
    between, within = values.mean(1).var(ddof=1) / 2, values.mean(0).var(ddof=1) / 3
    assert found.value == pytest.approx(3.0)
    assert found.stderr == pytest.approx(math.sqrt(between + within))
    df = (between + within) ** 2 / (between**2 / 1 + within**2 / 2)
    quantile = 3.2635  # Student's, of this many degrees of freedom
    assert df == pytest.approx(2.8730, abs=1e-3)
    assert found.high == pytest.approx(3.0 + quantile * found.stderr, rel=1e-3)
    assert (found.runs, found.items, found.method) == (2, 3, "seeds and items")


def test_one_run_has_the_interval_of_a_single_evaluation() -> None:
    found = replicated_mean([run([1, 1, 0, 1])], "success")
    assert (found.low, found.high) == (
        pytest.approx(0.3006, abs=1e-4),
        pytest.approx(0.9544, abs=1e-4),
    )
    assert found.method == "items"
    before, after = run([0] * 6 + [1]), run([1] * 6 + [0])
    change, single = (
        replicated_change([before], [after], "success"),
        paired_change(before, after, "success"),
    )
    assert (change.low, change.high, change.p_value) == (single.low, single.high, single.p_value)


def test_equal_runs_are_not_more_certain_than_one() -> None:
    one, three = (replicated_mean([run([1] * 20)] * n, "success") for n in (1, 3))
    assert (one.low, one.high) == (three.low, three.high)
    assert one.low < 0.9


def test_no_difference_of_shares_is_certain() -> None:
    found = replicated_change([run([0] * 30)] * 3, [run([1] * 30)] * 3, "success")
    assert found.value == pytest.approx(1.0)
    assert found.low < 1.0 == found.high
    assert 0 < found.p_value < 1e-6


def test_items_that_a_run_lacks_are_counted() -> None:
    runs = [run([1, 0, 1, 0]), run([1, 1, 1, 0])[1:], run([0, 0, 1, 0])]
    found = replicated_mean(runs, "success")
    assert (found.items, found.left_out) == (3, 1)
    assert found.value == pytest.approx((1 + 2 + 1) / 9)
    with pytest.raises(ValueError, match="no item with a reward"):
        replicated_mean(runs, "reward")


def test_runs_on_other_items_are_independent_observations() -> None:
    runs = [run(values, "loss") for values in ([1.0, 2.0], [2.0, 3.0], [3.0, 4.0])]
    found = replicated_mean(runs, "loss", same_items=False)
    assert (found.method, found.value) == ("seeds", pytest.approx(2.5))
    half = 4.302653 * math.sqrt(1 / 3)
    assert found.high - found.value == pytest.approx(half, rel=1e-5)
    change = replicated_change(runs, [run([1.0, 1.0], "loss")] * 3, "loss", same_items=False)
    assert change.value == pytest.approx(-1.5)
    assert change.before == pytest.approx(2.5)


def test_weights_and_groups_are_those_of_the_single_evaluations() -> None:
    losses = [run([2.0, 1.0], "loss", weight=[30, 10]), run([1.0, 1.0], "loss", weight=[30, 10])]
    assert replicated_mean(losses, "loss").value == pytest.approx((1.75 + 1.0) / 2)
    kinds = ["a", "a", "a", "b"]
    grouped = [run([1, 1, 1, 0], group=kinds), run([1, 1, 0, 0], group=kinds)]
    found = replicated_mean(grouped, "success", macro=True)
    assert found.value == pytest.approx((1 / 2 + 1 / 3) / 2)
    alone = [run([1, 0], group=["a", "b"]), run([1, 1], group=["a", "b"])]
    assert replicated_mean(alone, "success", macro=True).stderr > 0


def test_one_item_says_nothing_of_others() -> None:
    found = replicated_mean([run([1.5], "loss"), run([1.0], "loss")], "loss")
    assert (found.low, found.high) == (-math.inf, math.inf)
    share = replicated_mean([run([1]), run([0])], "success")
    assert (share.low, share.high) == (0.0, 1.0)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, math.nan]) == [
        pytest.approx(0.03),
        pytest.approx(0.06),
        pytest.approx(0.06),
        pytest.approx(math.nan, nan_ok=True),
    ]


CASES = {
    "no seed effect": (0.0, 1.0),
    "both": (0.4, 1.5),
    "seeds dominate": (0.8, 0.5),
}


@pytest.mark.parametrize("spread", CASES.values(), ids=CASES)
def test_intervals_cover_and_tests_keep_their_size_with_three_seeds(
    spread: tuple[float, float],
) -> None:
    """Success of 48 items with random effects of seed and item, both logistic; no true change."""
    random = np.random.default_rng(3)
    seeds, items, repeats = 3, 48, 100
    draws = random.normal(0, 1, 200_000) * math.hypot(*spread)
    truth = float((1 / (1 + np.exp(-0.5 - draws))).mean())

    def arm(item: Any) -> list[list[Record]]:
        logits = 0.5 + random.normal(0, spread[0], (seeds, 1)) + item
        hits = random.random((seeds, items)) < 1 / (1 + np.exp(-logits))
        return [run(row) for row in hits]

    covered = wrong = 0
    for _ in range(repeats):
        item = random.normal(0, spread[1], items)
        first, second = arm(item), arm(item)
        mean = replicated_mean(first, "success")
        covered += mean.low <= truth <= mean.high
        change = replicated_change(first, second, "success")
        wrong += change.p_value < 0.05
        assert (change.p_value < 0.05) == (not change.low <= 0 <= change.high)
    # Of 100 with a true rate of 0.95 or 0.05: three standard errors are 0.065.
    assert covered / repeats > 0.95 - 0.065
    assert wrong / repeats < 0.05 + 0.065
