"""Orders whose examples are packed: stages, units, and that longer runs begin alike."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from dataset_builders.encoding.row_index import make_index
from dataset_builders.errors import ConfigError
from dataset_builders.mixing.eta_schedule import QuotaStage
from dataset_builders.mixing.mix_report import repeat_rate
from dataset_builders.mixing.packed_order import Packing, bins_of, pack_plan
from dataset_builders.mixing.planning import Plan, make_order

PACKING = Packing(capacity=4096, batch=16, rows=16 * 60, window=100)


def index(number: int, mean: float, trained: float, seed: int) -> Any:
    tokens = np.clip(np.random.default_rng(seed).gamma(4.0, mean / 4, number), 8, 4096).astype(int)
    counts = np.maximum(1, tokens * trained).astype(int)
    tasks = ["db" if n % 3 else "os" for n in range(number)]
    return make_index({"tokens": tokens, "trained_tokens": counts, "task": tasks}, number)


AGENT, GENERAL = index(700, 900, 0.25, 1), index(5000, 1500, 0.75, 2)
COUNTS = {
    name: np.concatenate([AGENT[name].to_numpy(), GENERAL[name].to_numpy()]).astype(float)
    for name in ("tokens", "trained_tokens")
}


def shares(plan: Plan, found: Any, borders: list[int]) -> list[float]:
    """Realised share of agent data between borders, in packed rows."""
    rows = found.planned.order.indices()
    unit = {"token": "tokens", "trained_token": "trained_tokens"}.get(plan.unit)
    weight = np.ones(len(COUNTS["tokens"])) if unit is None else COUNTS[unit]
    drawn = weight[rows]
    of_agent, of_all = (found.bins.sums(v) for v in (drawn * (rows < 700), drawn))
    pairs = pairwise(borders)
    return [float(of_agent[a:b].sum() / of_all[a:b].sum()) for a, b in pairs]


@pytest.mark.parametrize("unit", ["example", "token", "trained_token"])
@pytest.mark.parametrize("mode", ["stratified", "iid"])
def test_late_stages_have_their_share(unit: Any, mode: Any) -> None:
    # The last stage begins beyond the number of examples that a mean over all rows suggests.
    plan = Plan(0.6, unit, mode)
    stages = [(16 * 20, 0.2), (16 * 50, 0.4)]
    found = pack_plan(plan, AGENT, GENERAL, PACKING, seed=3, stages=stages)
    # Away from the borders, which a window blurs.
    got = shares(plan, found, [0, 16 * 15, 16 * 25, 16 * 45, 16 * 55, 16 * 60])
    loose = 0.06 if mode == "iid" else 0.03
    assert got[0] == pytest.approx(0.6, abs=loose)
    assert got[2] == pytest.approx(0.2, abs=loose)
    assert got[4] == pytest.approx(0.4, abs=2 * loose)


def test_a_stage_beyond_the_end_is_never_reached() -> None:
    stages = (QuotaStage(0, 0.2), QuotaStage(6400, 0.5))
    for mode in ("stratified", "iid"):
        plan = Plan(stages, "token", mode)  # type: ignore[arg-type]
        order = make_order(plan, AGENT, GENERAL, seed=0, num_examples=640).order
        assert order.stages[1] == QuotaStage(6400, 0.5)
        assert len(order.indices()) == 640


@pytest.mark.parametrize("weights", [{}, {"db": 1.0, "os": 3.0}])
def test_a_longer_run_begins_with_the_same_rows(weights: dict[str, float]) -> None:
    plan = Plan(0.05, task_weights=weights)
    short, long = (
        pack_plan(plan, AGENT, GENERAL, PACKING._replace(rows=rows), seed=9)
        for rows in (16 * 20, 16 * 40)
    )
    # All but the last window's: where a run ends, it has had all examples up to a place.
    settled = short.bins.settled
    assert settled > 16 * 15
    rows, more = (
        found.planned.order.indices()[found.bins.head(settled).positions] for found in (short, long)
    )
    assert (more == rows).all()


SIZES = [(50, 5000), (50, 305), (20, 305), (700, 5000), (3, 400)]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(("num_agent", "num_general"), SIZES)
@pytest.mark.parametrize("weights", [{}, {"db": 1.0, "os": 2.0}])
def test_no_packed_row_holds_a_conversation_twice_and_passes_are_passes(
    num_agent: int, num_general: int, weights: dict[str, float], seed: int
) -> None:
    plan = Plan(0.2, task_weights=weights)
    agent, general = index(num_agent, 500, 0.25, seed), index(num_general, 800, 0.75, seed)
    packing = Packing(capacity=4096, batch=4, rows=4 * 100)
    found = pack_plan(plan, agent, general, packing, seed=seed)
    bins, rows = found.bins, found.planned.order.indices()
    assert len(bins) == packing.rows
    # All examples of the mix up to a place, and none beyond it.
    assert sorted(bins.positions.tolist()) == list(range(len(bins.positions)))
    for members in bins:
        assert len(set(rows[members].tolist())) == len(members)
    times = np.bincount(rows[bins.positions], minlength=num_agent + num_general)
    tasks = agent["task"].to_pylist()
    sides = [times[num_agent:]]
    sides += (
        [times[:num_agent][[t == task for t in tasks]] for task in weights]
        if weights
        else [times[:num_agent]]
    )
    for side in sides:
        assert side.max() - side.min() <= 1
    drawn = rows[bins.positions]
    batch = np.repeat(np.arange(len(bins)) // packing.batch, np.diff(bins.offsets))
    rate = repeat_rate(drawn, batch, num_agent)
    assert rate["general"] == 0
    if num_agent > 3:
        # Of a small task a batch may take nearly all rows: packing moves some into the next pass.
        assert rate["agent"] <= (0.05 if num_agent == 20 else 0.01 if weights else 0.0)


def test_the_repeat_rate_counts_further_copies() -> None:
    rows = np.array([0, 0, 5, 5, 5, 1, 0, 6])
    groups = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    # Of four agent examples one is a second copy; of four general ones two are.
    assert repeat_rate(rows, groups, 2) == {"agent": 0.25, "general": 0.5}
    assert repeat_rate(rows[2:5], groups[2:5], 2)["agent"] == 0


def test_the_bins_follow_from_the_order_alone() -> None:
    found = pack_plan(Plan(0.3, "trained_token"), AGENT, GENERAL, PACKING, seed=5)
    again = bins_of(found.planned.order, AGENT, GENERAL, PACKING)
    assert (again.positions == found.bins.positions).all()
    assert (again.offsets == found.bins.offsets).all()


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5, -0.2, float("nan")])
def test_a_share_of_models_outside_of_its_bounds_is_refused(share: float) -> None:
    plan = replace(Plan(0.2), gpt4_share=share)
    with pytest.raises(ConfigError, match="gpt4_share: found"):
        make_order(plan, AGENT, GENERAL, seed=0, num_examples=10)
