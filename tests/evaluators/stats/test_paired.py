"""Paired comparison: known cases by hand, and coverage and size by simulation."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from evaluators.stats.paired import paired_change
from evaluators.training.floors import ScoreFloor


def records(values: Any, score: str = "success", **more: Any) -> list[dict[str, Any]]:
    return [
        {"item": f"t{n}", "scores": {score: float(value)}, **{k: v[n] for k, v in more.items()}}
        for n, value in enumerate(values)
    ]


def test_mcnemars_exact_test_and_the_tasks_that_changed() -> None:
    before = records([0] * 8 + [1] * 2 + [1] * 10)
    after = records([1] * 8 + [0] * 2 + [1] * 10)
    change = paired_change(before, after, "success")
    assert change.value == pytest.approx(0.3)
    # Ten changed, two of them for the worse: 2 * (1 + 10 + 45) / 1024.
    assert change.p_value == pytest.approx(2 * 56 / 1024)
    assert change.better == tuple(f"t{n}" for n in range(8))
    assert change.worse == ("t8", "t9")
    assert change.n == 20
    assert change.low < 0.3 < change.high


def test_newcombes_interval_as_he_published_it() -> None:
    """Newcombe 1998, table III: 36 of 50 both, 12 and 2 alone, 0 neither: 0.0569 to 0.3404."""
    old = [1] * 36 + [0] * 12 + [1] * 2
    new = [1] * 36 + [1] * 12 + [0] * 2
    change = paired_change(records(old), records(new), "success")
    assert (change.low, change.high) == (
        pytest.approx(0.0569, abs=3e-4),
        pytest.approx(0.3404, abs=3e-4),
    )


def test_only_common_tasks_count() -> None:
    before = [*records([0, 0, 1]), {"item": "t3", "scores": {}}]
    after = records([1, 1, 1, 1, 1])[1:]
    change = paired_change(before, after, "success")
    assert change.n == 2
    assert change.better == ("t1",)
    with pytest.raises(ValueError, match="no task"):
        paired_change(records([1]), [{"item": "x", "scores": {"success": 1.0}}], "success")


def test_weights_are_those_of_a_loss_per_token() -> None:
    before = records([2.0, 1.0], "loss", weight=[30, 10])
    after = records([1.8, 1.4], "loss", weight=[30, 10])
    change = paired_change(before, after, "loss")
    assert change.before == pytest.approx((2.0 * 30 + 1.0 * 10) / 40)
    assert change.value == pytest.approx((-0.2 * 30 + 0.4 * 10) / 40)
    assert (change.better, change.worse) == (("t0",), ("t1",))  # less loss is better


def test_groups_count_the_same() -> None:
    group = ["a", "b", "b", "b"]
    before, after = records([0, 0, 0, 0], group=group), records([1, 0, 0, 0], group=group)
    change = paired_change(before, after, "success", macro=True)
    assert change.value == pytest.approx(0.5)
    assert paired_change(before, after, "success").value == pytest.approx(0.25)


def test_the_uncertainty_within_groups_by_hand() -> None:
    group = ["a", "a", "b", "b", "b"]
    old, new = [0.0] * 5, [0.1, 0.3, 0.2, 0.4, -0.9]
    change = paired_change(
        records(old, group=group), records(new, group=group), "success", macro=True
    )
    mean_b = -0.1
    squares = sum((value - mean_b) ** 2 for value in new[2:])
    stderr = math.sqrt(0.02 / 2 + squares / 2 / 3) / 2
    assert change.value == pytest.approx((0.2 + mean_b) / 2)
    assert change.stderr == pytest.approx(stderr)
    # Five tasks less two means: three degrees of freedom.
    assert change.high - change.value == pytest.approx(3.1824 * stderr, rel=1e-4)
    # A sign is that of a task's part of the score, 1/4 in the one group, 1/6 in the other.
    parts = [0.1 / 4, 0.3 / 4, 0.2 / 6, 0.4 / 6, -0.9 / 6]
    flips = [
        abs(sum(s * p for s, p in zip(signs, parts, strict=True)))
        for signs in itertools.product((1, -1), repeat=5)
    ]
    assert change.p_value == sum(each >= abs(sum(parts)) - 1e-12 for each in flips) / 32


def test_no_p_value_drawn_at_random_is_zero() -> None:
    change = paired_change(records([0.0] * 60), records([0.5] * 60), "success")
    assert 0 < change.p_value < 1e-3


def test_sign_flips_exact_and_at_random_agree() -> None:
    values = np.random.default_rng(3).normal(0.4, 1, 14)
    exact = paired_change(records([0.0] * 14), records(values), "success").p_value
    drawn = paired_change(records([0.0] * 15), records([*values, 1e-9]), "success").p_value
    assert drawn == pytest.approx(exact, abs=0.01)
    assert paired_change(records([0.5]), records([0.5]), "success").p_value == 1.0


def test_a_single_task_has_no_finite_interval() -> None:
    change = paired_change(records([-0.2]), records([0.7]), "success")
    assert (change.low, change.high, change.stderr) == (-math.inf, math.inf, math.inf)
    share = paired_change(records([0.2]), records([0.7]), "success")
    assert (share.low, share.high, share.stderr) == (-1.0, 1.0, math.inf)


@pytest.mark.parametrize(("freedom", "quantile"), [(6, 2.4469), (9, 2.2622), (30, 2.0423)])
def test_students_quantiles(freedom: int, quantile: float) -> None:
    values = np.random.default_rng(0).normal(size=freedom + 1)
    change = paired_change(records([0.0] * len(values)), records(values), "success")
    assert (change.high - change.value) / change.stderr == pytest.approx(quantile, abs=5e-5)


@pytest.mark.parametrize("n", [8, 32, 200])
@pytest.mark.parametrize(("base", "gain"), [(0.05, 0.1), (0.4, 0.0), (0.1, 0.6)])
def test_intervals_cover_and_tests_keep_their_size(n: int, base: float, gain: float) -> None:
    """Tasks of unlike difficulty, measured twice: 500 experiments."""
    random = np.random.default_rng(n)
    covered = rejected = 0
    runs = 500
    for _ in range(runs):
        ease = random.random(n)
        old, new = (
            ease < base,
            np.where(random.random(n) < 0.7, ease, random.random(n)) < base + gain,
        )
        change = paired_change(records(old), records(new), "success")
        covered += change.low <= gain <= change.high
        rejected += change.p_value < 0.05
    assert covered / runs >= 0.92
    if gain == 0:
        assert rejected / runs <= 0.07


@pytest.mark.parametrize("n", [5, 20])
def test_students_interval_covers(n: int) -> None:
    random = np.random.default_rng(n)
    covered = 0
    for _ in range(1000):
        before = random.exponential(1.0, n)
        after = before + random.normal(0.3, 0.5, n)
        change = paired_change(records(before), records(after), "success")
        covered += change.low <= 0.3 <= change.high
    assert covered / 1000 >= 0.93


def test_a_score_that_is_no_number_is_no_evidence_but_breaks_the_floor() -> None:
    sound, diverged = records([1.0, 2.0, 3.0], "loss"), records([math.nan] * 3, "loss")
    change = paired_change(sound, diverged, "loss")
    assert math.isnan(change.p_value)
    assert ScoreFloor().broken(change, "loss")
    assert not ScoreFloor().broken(paired_change(diverged, diverged, "loss"), "loss")
