"""Stages of eta, independent draws, pools and eta in tokens."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.encoding.row_index import make_index
from dataset_builders.errors import ConfigError
from dataset_builders.mixing.eta_schedule import QuotaSchedule, QuotaStage
from dataset_builders.mixing.order import MixOrder, Pool
from dataset_builders.mixing.planning import Plan, make_order
from dataset_builders.mixing.pools import model_pools, weighted_pools
from dataset_builders.mixing.unit_conversion import solve_example_rates

moderate = settings(max_examples=60, deadline=None, database=None)
MODES = st.sampled_from(["stratified", "iid"])
POOLS = (Pool(np.arange(1), 1), Pool(np.arange(1, 3), 3))


@st.composite
def staged_orders(draw: Any) -> MixOrder:
    starts = sorted(draw(st.sets(st.integers(1, 900), max_size=3)))
    shares = draw(st.lists(st.floats(0, 1), min_size=len(starts) + 1, max_size=len(starts) + 1))
    return MixOrder(
        draw(st.integers(3, 60)),
        draw(st.integers(3, 60)),
        tuple(map(QuotaStage, [0, *starts], shares)),
        draw(st.integers(-(2**65), 2**65)),
        draw(st.integers(1, 1200)),
        draw(st.integers(1, 100)),
        draw(MODES),
        general_pools=draw(
            st.sampled_from([(), (Pool(np.arange(1), 1), Pool(np.arange(1, 3), 3))])
        ),
    )


@moderate
@given(order=staged_orders(), chooser=st.randoms(use_true_random=False))
def test_every_kind_of_order_is_a_function_of_the_position(order: MixOrder, chooser: Any) -> None:
    whole = order.indices()
    agent, row = order.rows(np.arange(order.num_examples))
    some = np.array(chooser.choices(range(order.num_examples), k=20))
    assert (order.rows(some)[1] == row[some]).all()
    start = chooser.randrange(order.num_examples)
    assert (order.slice(start, order.num_examples) == whole[start:]).all()
    for chosen, size in ((row[agent], order.num_agent), (row[~agent], order.num_general)):
        assert ((chosen >= 0) & (chosen < size)).all()
    for begin in range(0, agent.sum() - order.num_agent + 1, order.num_agent):
        drawn = row[agent][begin : begin + order.num_agent]
        assert len(set(drawn.tolist())) == order.num_agent


@moderate
@given(order=staged_orders())
def test_stages_hold_their_shares(order: MixOrder) -> None:
    if order.mode == "iid":
        return
    agent = order.is_agent(np.arange(order.num_examples))
    starts = [*(stage.start for stage in order.stages), order.num_examples]
    wanted = np.zeros(order.num_examples)
    for stage, end in zip(order.stages, starts[1:], strict=True):
        wanted[stage.start : end] = stage.share
    gap = np.cumsum(agent) - np.cumsum(wanted)
    # Nearest integer at each border of blocks.
    borders = np.arange(order.block, order.num_examples, order.block) - 1
    assert (np.abs(gap[borders]) <= 0.5 + 1e-9).all()
    assert abs(gap[-1]) <= 0.5 + 1e-9


@pytest.mark.parametrize("eta", [0.02, 0.2, 0.7])
def test_independent_draws_match_the_binomial(eta: float) -> None:
    """Counts in windows that straddle blocks: mean, spread and shape of Binomial(w, eta)."""
    order = MixOrder(100, 1000, eta, 11, 400_000, mode="iid")
    agent = order.is_agent(np.arange(order.num_examples))
    for window in (10, 64, 100):
        counts = agent[: len(agent) // window * window].reshape(-1, window).sum(axis=1)
        number = len(counts)
        deviation = math.sqrt(window * eta * (1 - eta))
        assert abs(counts.mean() - window * eta) < 5 * deviation / math.sqrt(number)
        assert abs(counts.std() / deviation - 1) < 5 / math.sqrt(number)
        expected = [
            number * math.comb(window, k) * eta**k * (1 - eta) ** (window - k)
            for k in range(window + 1)
        ]
        usual = [k for k, times in enumerate(expected) if times >= 20]
        seen = np.bincount(counts, minlength=window + 1)
        chi2 = sum((seen[k] - expected[k]) ** 2 / expected[k] for k in usual)
        # Five standard deviations of a chi-squared sum with as many terms.
        assert chi2 < len(usual) + 5 * math.sqrt(2 * len(usual))
    # Neighbours are independent.
    both = (agent[1:] & agent[:-1]).mean()
    assert abs(both - eta**2) < 5 * math.sqrt(eta**2 / len(agent))


def test_stratified_is_not_binomial() -> None:
    counts = MixOrder(100, 1000, 0.2, 11, 64_000).is_agent(np.arange(64_000)).reshape(-1, 64).sum(1)
    assert set(counts.tolist()) == {12, 13}


def test_pools_have_their_weights_in_every_stretch() -> None:
    pools = Pool(np.arange(10), 1), Pool(np.arange(10, 1000), 3), Pool(np.arange(1000, 1100), 1)
    order = MixOrder(50, 1100, 0.2, 0, 20_000, general_pools=pools)
    agent, row = order.rows(np.arange(20_000))
    for part in np.split(row[~agent], 10):
        shares = [np.isin(part, pool.rows).mean() for pool in pools]
        assert shares == pytest.approx([0.2, 0.6, 0.2], abs=0.003)
    first = row[~agent][row[~agent] < 10]
    assert all(len(set(first[i : i + 10].tolist())) == 10 for i in range(0, 3000, 10))


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"db": 1.0}, r"task_weights: no weight for os; the data has db \(2 rows\), os \(1 rows\)"),
        ({"db": 1.0, "os": -1.0}, r"task_weights.os: found -1.0, expected a number of at least 0"),
        (
            {"db": 1.0, "os": 1.0, "kg": 1.0},
            r"task_weights.kg: no row has this label; the data has db",
        ),
        ({"db": 0.0, "os": 0.0}, r"task_weights: all weights are 0"),
        ({"db": math.nan, "os": 1.0}, r"task_weights.db: found nan"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        weighted_pools(["db", "os", "db"], weights, "task_weights")


def test_a_weight_of_0_leaves_rows_out() -> None:
    (pool,) = weighted_pools(["db", "os", "db"], {"db": 2.0, "os": 0.0}, "task_weights")
    assert pool.rows.tolist() == [0, 2]
    order = MixOrder(3, 1, 0.9, 0, 100, agent_pools=(pool,))
    agent, row = order.rows(np.arange(100))
    assert set(row[agent].tolist()) == {0, 2}


def test_the_papers_ratio_of_models_is_applied_where_it_is_known() -> None:
    pools, note = model_pools(["gpt-4", "gpt-3.5", "gpt-3.5", ""], 0.2)
    assert [(pool.rows.tolist(), pool.weight) for pool in pools] == [([0], 0.2), ([1, 2, 3], 0.8)]
    assert note.endswith("was applied: 1 rows of GPT-4, 4 in all; 1 of unknown origin count "
                         "among the others")  # fmt: skip
    for models, words in (
        (["", ""], "could not be applied: of 2 of 2 rows it is not known which model answered"),
        (["gpt-3.5"], "could not be applied: none of 1 is GPT-4's"),
        (["gpt-4"], "could not be applied: all are GPT-4's"),
    ):
        pools, note = model_pools(models, 0.2)
        assert pools == ()
        assert words in note


def index(counts: Any, seed: int, **columns: Any) -> Any:
    tokens = np.maximum(1, np.random.default_rng(seed).gamma(2.0, counts / 2, 4000)).astype(int)
    return make_index({"tokens": tokens * 4, "trained_tokens": tokens, **columns}, 4000)


@pytest.mark.parametrize("unit", ["token", "trained_token"])
@pytest.mark.parametrize("eta", [0.05, 0.2, 0.6])
def test_eta_in_tokens_is_met_within_a_percent(unit: Any, eta: float) -> None:
    agent, general = index(250, 1), index(1100, 2)
    order = make_order(Plan(eta, unit), agent, general, seed=3, num_examples=10_000).order
    drawn = order.indices()
    column = "tokens" if unit == "token" else "trained_tokens"
    counts = np.concatenate([agent[column].to_numpy(), general[column].to_numpy()])[drawn]
    share = counts[drawn < 4000].sum() / counts.sum()
    assert abs(share / eta - 1) < 0.01
    # Agent rows are the shorter ones, so it takes more of them.
    assert order.stages[0].share > eta


def test_stages_in_tokens_are_each_met() -> None:
    agent, general = index(250, 1), index(1100, 2)
    stages = QuotaStage(0, 0.5), QuotaStage(6400, 0.0), QuotaStage(12_800, 0.1)
    order = make_order(
        Plan(stages, "trained_token"), agent, general, seed=3, num_examples=25_600
    ).order
    counts = np.concatenate([part["trained_tokens"].to_numpy() for part in (agent, general)])
    drawn = order.indices()
    for start, end, eta in ((0, 6400, 0.5), (6400, 12_800, 0.0), (12_800, 25_600, 0.1)):
        part = drawn[start:end]
        share = counts[part[part < 4000]].sum() / counts[part].sum()
        assert share == pytest.approx(eta, rel=0.01)


def test_tokens_of_rows_that_are_not_encoded_cannot_be_counted() -> None:
    plain = make_index({}, 5)
    with pytest.raises(ConfigError, match="only be counted in encoded rows: give a tokenizer"):
        make_order(Plan(0.2, "token"), plain, plain, seed=0, num_examples=5)
    zero = make_index({"tokens": [4] * 5, "trained_tokens": [0] * 5}, 5)
    with pytest.raises(ConfigError, match="agent rows have no token of the unit"):
        make_order(Plan(0.2, "trained_token"), zero, zero, seed=0, num_examples=5)
    with pytest.raises(ConfigError, match="eta_unit: found 'byte', expected one of example"):
        make_order(Plan(0.2, "byte"), plain, plain, seed=0, num_examples=5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "stages",
    [
        (),
        (QuotaStage(1, 0.2),),
        (QuotaStage(0, 0.2), QuotaStage(0, 0.3)),
        (QuotaStage(0, 0.1), QuotaStage(9, 0), QuotaStage(5, 0)),
    ],
)
def test_stages_out_of_order_are_refused(stages: tuple[QuotaStage, ...]) -> None:
    with pytest.raises(ConfigError, match="eta: found stages from"):
        solve_example_rates(
            stages, lambda found: MixOrder(1, 1, found, 0, 10), np.ones(2, np.int64)
        )


def test_a_far_position_costs_no_more_than_a_near_one() -> None:
    split = QuotaSchedule((QuotaStage(0, 0.2),), 10**15, 64, 0, 0)
    chosen, rank = split.assign(np.array([0, 10**15 - 1, 10**14 + 17]))
    assert rank[1] == pytest.approx(10**15 * (0.2 if chosen[1] else 0.8), abs=2)
