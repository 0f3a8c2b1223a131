from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.errors import ConfigError
from dataset_builders.mixing.order import MixOrder, Pool, mix_datasets
from dataset_builders.mixing.permutation import permute

ETAS = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.2, 1 / 3, 0.5, 0.999, 1.0, 5e-324]))
ORDERS = st.builds(
    MixOrder,
    num_agent=st.integers(1, 90),
    num_general=st.integers(1, 90),
    eta=ETAS,
    seed=st.integers(-(2**70), 2**70),
    num_examples=st.integers(1, 1500),
    block=st.integers(1, 130),
)
moderate = settings(max_examples=150, deadline=None, database=None)


def positions(order: MixOrder) -> Any:
    return np.arange(order.num_examples, dtype=np.int64)


@moderate
@given(order=ORDERS)
def test_the_share_is_eta_over_all_and_in_each_block(order: MixOrder) -> None:
    agent = order.is_agent(positions(order))
    assert abs(agent.sum() - order.eta * len(agent)) <= 0.5 + 1e-9 * len(agent)
    for start in range(0, len(agent), order.block):
        part = agent[start : start + order.block]
        assert abs(part.sum() - order.eta * len(part)) <= 1 + 1e-9


@moderate
@given(order=ORDERS)
def test_each_pass_over_a_source_is_a_permutation(order: MixOrder) -> None:
    agent, row = order.rows(positions(order))
    assert len(row) == order.num_examples
    for chosen, size in ((row[agent], order.num_agent), (row[~agent], order.num_general)):
        for start in range(0, len(chosen), size):
            part = chosen[start : start + size].tolist()
            assert len(set(part)) == len(part)
            assert set(part) <= set(range(size))


@moderate
@given(order=ORDERS, chooser=st.randoms(use_true_random=False))
def test_any_positions_in_any_order_give_the_same_rows(order: MixOrder, chooser: Any) -> None:
    agent, row = order.rows(positions(order))
    some = np.array(chooser.choices(range(order.num_examples), k=40), dtype=np.int64)
    some_agent, some_row = order.rows(some)
    assert (some_agent == agent[some]).all()
    assert (some_row == row[some]).all()
    assert (order.is_agent(some) == agent[some]).all()
    flat = np.where(agent, row, row + order.num_agent)
    assert (order.indices() == flat).all()


@moderate
@given(order=ORDERS, more=st.integers(0, 500))
def test_a_longer_mix_begins_with_the_same_whole_blocks(order: MixOrder, more: int) -> None:
    longer = MixOrder(
        order.num_agent,
        order.num_general,
        order.eta,
        order.seed,
        order.num_examples + more,
        order.block,
    )
    whole = order.num_examples // order.block * order.block
    assert (longer.indices()[:whole] == order.indices()[:whole]).all()


@pytest.mark.parametrize("mode", ["stratified", "iid"])
@pytest.mark.parametrize("num_agent", [16, 17, 25, 40, 41, 200])
def test_no_batch_holds_a_row_twice_where_there_are_enough(num_agent: int, mode: Any) -> None:
    """Also where one pass ends and the next begins; a batch takes some 13 of 64."""
    order = MixOrder(num_agent, 150, 0.2, 5, 64 * 400, mode=mode)
    batches = order.indices().reshape(-1, 64)
    agent = (batches < num_agent).sum(axis=1).max()
    assert mode == "iid" or agent == 13
    for batch in batches:
        general = batch[batch >= num_agent]
        assert len(set(general.tolist())) == len(general)
        mine = batch[batch < num_agent]
        # Drawn one by one, a batch in ten thousand takes more than four deviations above.
        if mode == "stratified" or num_agent > 40:
            assert len(set(mine.tolist())) == len(mine)
    assert len({tuple(row) for row in order.indices()[:640].reshape(-1, 64).tolist()}) == 10


def test_passes_seeds_and_blocks_differ() -> None:
    order = MixOrder(40, 50, 0.5, 3, 400, 20)
    agent, row = order.rows(positions(order))
    for chosen, size in ((row[agent], 40), (row[~agent], 50)):
        passes = {tuple(chosen[start : start + size]) for start in range(0, 200, size)}
        assert len(passes) == 200 // size
        assert tuple(range(size)) not in passes
    places = {tuple(agent[start : start + 20]) for start in range(0, 400, 20)}
    assert len(places) >= 18
    indices = order.indices().tolist()
    assert indices == MixOrder(40, 50, 0.5, 3, 400, 20).indices().tolist()
    others = [
        MixOrder(40, 50, 0.5, seed, 400, 20).indices().tolist() for seed in (4, -3, 2**64 - 1)
    ]
    assert all(indices != other for other in others)
    assert others[0] != others[1] != others[2] != others[0]


def test_the_order_never_changes_between_releases() -> None:
    # A run that is resumed after an update must see the rows that it has not seen yet.
    assert MixOrder(7, 11, 0.2, 42, 32, 8).indices().tolist() == [
        *(13, 16, 7, 2, 1, 10, 17, 12),
        *(8, 14, 11, 9, 3, 15, 13, 10),
        *(5, 16, 0, 7, 14, 8, 12, 17),
        *(9, 11, 15, 7, 10, 16, 13, 4),
    ]
    order = MixOrder(3, 5, 0.37, -1, 20)
    assert order.indices().tolist() == [
        *(5, 6, 0, 7, 3, 4, 2, 7, 1, 6),
        *(5, 3, 0, 2, 4, 7, 6, 1, 5, 2),
    ]
    paper = MixOrder(1866, 60766, 0.2, 0, 128_000).indices()
    assert paper[:8].tolist() == [3950, 47109, 10741, 57031, 1820, 52383, 19905, 40951]
    assert paper[-4:].tolist() == [39193, 30756, 43648, 681]
    assert int(paper.sum()) == 3326179636
    assert MixOrder(7, 11, 0.2, 42, 32, 8, mode="iid").indices().tolist() == [
        *(13, 16, 7, 2, 1, 10, 17, 12),
        *(8, 14, 11, 9, 3, 15, 13, 10),
        *(5, 0, 4, 6, 16, 7, 14, 8),
        *(12, 17, 2, 9, 11, 15, 7, 5),
    ]
    pools = (Pool(np.arange(3), 1), Pool(np.arange(3, 11), 4))
    assert MixOrder(7, 11, 0.5, 42, 32, 8, general_pools=pools).indices().tolist() == [
        *(5, 16, 1, 3, 4, 12, 9, 8),
        *(2, 11, 10, 14, 0, 6, 13, 3),
        *(5, 1, 0, 2, 7, 17, 15, 11),
        *(4, 6, 1, 10, 12, 16, 14, 5),
    ]


@pytest.mark.parametrize("eta", [0.2, 0.5])
def test_no_rank_gets_another_share(eta: float) -> None:
    # A distributed sampler gives each rank every n-th example.
    agent = MixOrder(100, 1000, eta, 0, 64_000).is_agent(np.arange(64_000))
    for stride in (2, 3, 4, 5, 8, 64):
        for offset in range(min(stride, 8)):
            rank = agent[offset::stride]
            # Five standard deviations of independent draws.
            assert abs(rank.mean() - eta) < 5 * math.sqrt(eta * (1 - eta) / len(rank))


def test_the_smaller_source_comes_back() -> None:
    agent, row = MixOrder(1, 10_000, 0.5, 0, 1000).rows(np.arange(1000))
    assert agent.sum() == 500
    assert (row[agent] == 0).all()
    agent, row = MixOrder(10_000, 1, 0.1, 0, 1000).rows(np.arange(1000))
    assert len(set(row[agent].tolist())) == agent.sum() == 100


def test_a_permutation_of_any_size_is_one_to_one() -> None:
    for size in range(1, 301):
        for key in (0, 1, size << 40, 2**64 - 1):
            image = permute(
                np.arange(size), np.full(size, size), np.full(size, key, dtype=np.uint64)
            )
            assert sorted(image.tolist()) == list(range(size))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"eta": -0.01}, "eta: found -0.01"),
        ({"eta": 1.01}, "eta: found 1.01"),
        ({"eta": math.nan}, "eta: found nan"),
        ({"eta": math.inf}, "eta: found inf"),
        ({"num_examples": 0}, "num_examples: found 0"),
        ({"block": 0}, "block: found 0"),
        ({"num_agent": 0}, r"eta is 0.2, but there is no agent data \(eta 0 needs none\)"),
        ({"num_general": 0}, r"eta is 0.2, but there is no general data \(eta 1 needs none\)"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any], words: str) -> None:
    good = {"num_agent": 1, "num_general": 1, "eta": 0.2, "seed": 0, "num_examples": 1}
    with pytest.raises(ConfigError, match=words):
        MixOrder(**(good | setting))


def mix(agent: Any, general: Any, **settings: Any) -> Any:
    order = MixOrder(len(agent or ()), len(general or ()), **settings)
    return mix_datasets(agent, general, order)


def dataset(start: int, size: int, name: str = "input_ids") -> Any:
    from datasets import Dataset

    return Dataset.from_dict({name: [[start + n] * 3 for n in range(size)]})


def test_eta_0_and_1_need_one_source_alone() -> None:
    agent, general, other = dataset(0, 5), dataset(100, 7), dataset(0, 3, "messages")
    for missing in (None, agent.select([]), other):
        rows = mix(missing, general, eta=0, num_examples=14, seed=0)["input_ids"]
        for part in (list(rows)[:7], list(rows)[7:]):
            assert sorted(ids[0] for ids in part) == list(range(100, 107))
    for missing in (None, general.select([]), other):
        rows = mix(agent, missing, eta=1, num_examples=5, seed=0)["input_ids"]
        assert sorted(ids[0] for ids in rows) == list(range(5))
    with pytest.raises(ConfigError, match="no agent data"):
        mix(None, general, eta=0.1, num_examples=5, seed=0)
    with pytest.raises(ConfigError, match="no general data"):
        mix(agent, general.select([]), eta=0.1, num_examples=5, seed=0)
    with pytest.raises(ConfigError, match=r"columns differ: agent \['input_ids'\], general"):
        mix(agent, other, eta=0.1, num_examples=5, seed=0)


def _addresses(rows: Any) -> set[int]:
    chunks = rows.data.table.column("input_ids").chunks
    return {chunk.values.buffers()[1].address for chunk in chunks}


def test_a_mix_is_a_view_in_the_orders_sequence() -> None:
    agent, general = dataset(0, 2_000), dataset(1_000_000, 58_000)
    before = pa.total_allocated_bytes()
    mixed = mix(agent, general, eta=0.2, num_examples=128_000, seed=5, block=32)
    # An index of 8 bytes a row, and the mix of the two, but no second copy of the rows.
    assert pa.total_allocated_bytes() - before < 2 * 8 * 128_000
    assert len(mixed) == 128_000
    assert len(mixed.data) == 60_000
    assert _addresses(mixed) == _addresses(agent) | _addresses(general)
    is_agent, row = MixOrder(2_000, 58_000, 0.2, 5, 128_000, 32).rows(np.arange(128_000))
    for position in (0, 1, 31, 32, 77_777, 127_999):
        value = int(row[position]) + (0 if is_agent[position] else 1_000_000)
        assert mixed[position]["input_ids"] == [value] * 3
    # Rows of a view, as one that holds rows out is, are those of the view.
    odd = general.select(range(1, 58_000, 2))
    again = mix(agent, odd, eta=0.5, num_examples=100, seed=0)
    values = [ids[0] for ids in again["input_ids"]]
    assert sum(value >= 1_000_000 for value in values) == 50
    assert all(value % 2 for value in values if value >= 1_000_000)


def test_columns_in_another_order_fit() -> None:
    from datasets import Dataset

    agent = Dataset.from_dict({"input_ids": [[1]], "labels": [[2]]})
    general = Dataset.from_dict({"labels": [[4]], "input_ids": [[3]]})
    mixed = mix(agent, general, eta=0.5, num_examples=2, seed=0)
    assert sorted(map(str, mixed)) == [
        "{'input_ids': [1], 'labels': [2]}",
        "{'input_ids': [3], 'labels': [4]}",
    ]
