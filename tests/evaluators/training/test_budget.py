"""The time budget, by a simulated clock."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataset_builders.errors import ConfigError
from evaluators.training.time_budget import PROBE, BudgetPlan, TimeBudget


class Run:
    """A training run on a clock of its own: steps and items take what they are told to."""

    def __init__(
        self,
        share: float,
        steps: int,
        step: float,
        estimate: float,
        costs: dict[str, float],
        growth: float = 1.0,
    ) -> None:
        self.now = 0.0
        self.budget = TimeBudget(share, clock=lambda: self.now)
        self.steps, self.step_seconds, self.costs = steps, step, dict(costs)
        self.growth = growth
        self.budget.start(0, estimate)
        self.items: dict[str, list[int]] = {name: [] for name in costs}
        self.evaluating = 0.0
        self.dearest = 0.0

    def evaluate(self, at: int, sizes: dict[str, int], every: int) -> None:
        runs = 1 + len(range(at - at % every + every, self.steps + 1, every))
        plan = {name: BudgetPlan(size, runs) for name, size in sizes.items()}
        for name in sizes:
            done = 0

            def measure(number: int, name: str = name) -> int:
                nonlocal done
                fresh = number - done
                assert fresh > 0
                seconds = fresh * self.costs[name]
                self.dearest = max(self.dearest, self.costs[name])
                self.now += seconds
                self.evaluating += seconds
                done = number
                return fresh

            told = self.budget.pace(plan, name, at, self.steps, measure)
            assert told == done
            self.items[name].append(done)
            self.costs[name] *= self.growth

    def train(self, sizes: dict[str, int], every: int) -> None:
        self.evaluate(0, sizes, every)
        for at in range(1, self.steps + 1):
            self.now += self.step_seconds
            if at % every == 0:
                self.evaluate(at, sizes, every)


@settings(max_examples=300, deadline=None)
@example(0.125, 11.0, 0.5, [0.375], 119, 31, 1.25)  # time for all items, were they not slower
@given(
    share=st.floats(0.02, 0.5),
    step=st.floats(0.01, 30),
    wrong=st.floats(0.3, 3),
    costs=st.lists(st.floats(0.001, 20), min_size=1, max_size=3),
    size=st.integers(1, 400),
    every=st.integers(5, 60),
    growth=st.floats(0.5, 1.5),
)
def test_evaluation_keeps_to_its_share(
    share: float,
    step: float,
    wrong: float,
    costs: list[float],
    size: int,
    every: int,
    growth: float,
) -> None:
    """Of random speeds, mixes of evaluators and answers that grow longer or shorter."""
    names = {f"e{number}": cost for number, cost in enumerate(costs)}
    run = Run(share, 120, step, step * wrong, names, growth)
    run.train(dict.fromkeys(names, size), every)
    # What is not known has to be tried, and one item is begun that then takes longer.
    probes = sum(PROBE * cost for cost in names.values())
    single = run.dearest
    # The estimate before the first step may be wrong; what that costs is one evaluation's
    # part, and later ones have less.
    first = share / (1 - share) * 120 * step * max(0.0, wrong - 1) / (120 // every)
    assert run.evaluating <= share * run.now + probes + single + first + 1e-6


def test_with_time_to_spare_everything_is_measured() -> None:
    run = Run(0.1, 100, 10.0, 10.0, {"cheap": 0.01, "dear": 0.1})
    run.train({"cheap": 64, "dear": 50}, 25)
    assert run.items == {"cheap": [64] * 5, "dear": [50] * 5}


def test_a_short_share_is_spread_over_the_run() -> None:
    """A tenth of 1,000 s for 5 runs of 100 items of 1 s: about a fifth of the items each."""
    run = Run(0.1, 100, 10.0, 10.0, {"dear": 1.0})
    run.train({"dear": 100}, 25)
    assert 0.07 < run.evaluating / run.now <= 0.1
    assert max(run.items["dear"]) - min(run.items["dear"]) <= 12
    assert min(run.items["dear"]) >= 15


def test_without_an_estimate_the_first_evaluation_is_a_probe() -> None:
    run = Run(0.1, 100, 10.0, 0.0, {"dear": 1.0})
    run.train({"dear": 100}, 25)
    assert run.items["dear"][0] == PROBE
    assert min(run.items["dear"][1:]) > PROBE


def test_a_resumed_run_has_the_share_of_what_is_left() -> None:
    clock = [100.0]
    budget = TimeBudget(0.1, clock=lambda: clock[0])
    budget.start(60, 10.0)
    budget.took("a", 1, 1.0)
    assert budget.training_seconds(60, 100) == pytest.approx(400)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 2.0])
def test_a_share_out_of_bounds_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="max_time_share"):
        TimeBudget(share)


def test_an_item_that_breaks_costs_its_time_and_teaches_nothing() -> None:
    budget: Any = TimeBudget(0.5, clock=lambda: 0.0)
    budget.start(0, 1.0)
    budget.took("a", 0, 3.0)
    assert not budget.knows("a")
    assert budget.spent == 3.0


def test_items_of_an_earlier_life_are_free_and_teach_nothing() -> None:
    """20 of 50 items were finished before the run was killed; they are read in no time."""
    clock = [0.0]
    budget = TimeBudget(0.1, clock=lambda: clock[0])
    budget.start(0, 10.0)
    parts = []

    def measure(number: int) -> int:
        fresh = max(0, number - max(20, parts[-1] if parts else 0))
        parts.append(number)
        clock[0] += fresh
        return fresh

    assert budget.pace({"a": BudgetPlan(50, 1)}, "a", 0, 100, measure, finished=20) == 50
    assert parts[0] == 20 + PROBE
    assert budget.spent == 30.0


def test_answers_that_have_become_longer_are_noticed_halfway() -> None:
    run = Run(0.1, 100, 10.0, 10.0, {"dear": 1.0})
    run.evaluate(0, {"dear": 400}, 100)  # of 111 s in two runs, one is this
    run.costs["dear"] = 2.0
    run.now += 1000.0
    run.evaluate(100, {"dear": 400}, 100)
    assert run.items["dear"][1] < run.items["dear"][0]
    assert run.evaluating <= 0.105 * run.now
    assert run.evaluating >= 0.07 * run.now


def test_where_no_time_is_left_nothing_is_measured_and_processes_agree() -> None:
    clock = [0.0]
    budget = TimeBudget(0.1, clock=lambda: clock[0])
    budget.start(0, 1.0)
    budget.took("a", 1, 100.0)
    clock[0] = 110.0  # ten steps of a second
    plan = {"a": BudgetPlan(5, 1), "b": BudgetPlan(5, 1)}
    for name in plan:  # "b" is not known, but probing it would take what there is not
        assert budget.pace(plan, name, 10, 100, lambda _: pytest.fail("measured")) == 0
    told: list[int] = []
    agreed = [3, 0]
    assert budget.pace(plan, "a", 10, 100, lambda n: told.append(n) or n, lambda _: agreed.pop(0))
    assert told == [3]
