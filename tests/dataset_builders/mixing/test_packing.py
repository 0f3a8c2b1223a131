"""Packing: what is lost (nothing), how full rows are, and what stays of the mix's order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builders.errors import ConfigError
from dataset_builders.mixing.order import MixOrder
from dataset_builders.mixing.packing import MAX_WINDOW, Bins, pack, pack_exactly, pack_to_fill

CAPACITY = 64
ETA = 0.2


@st.composite
def mixes(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of `pack`: any lengths up to the whole row, any settings."""
    examples = draw(
        st.lists(st.tuples(st.integers(1, CAPACITY), st.booleans(), st.integers(0, 9)), max_size=90)
    )
    lengths, agent, trained = (np.array([e[i] for e in examples], dtype=int) for i in range(3))
    dealt = draw(st.sampled_from(["no", "examples", "tokens too"]))
    return {
        "lengths": lengths,
        "capacity": CAPACITY,
        "batch": draw(st.integers(1, 9)),
        "window": draw(st.integers(1, 40)),
        "agent": None if dealt == "no" else agent.astype(bool),
        "trained": trained if dealt == "tokens too" else None,
    }


def same(one: Bins, other: Bins) -> bool:
    return one.positions.tolist() == other.positions.tolist() and (
        one.offsets.tolist() == other.offsets.tolist()
    )


@given(mixes())
def test_every_example_is_in_one_bin_and_no_bin_overflows(mix: dict[str, Any]) -> None:
    bins = pack(**mix)
    assert sorted(bins.positions.tolist()) == list(range(len(mix["lengths"])))
    sums = [int(mix["lengths"][bins[number]].sum()) for number in range(len(bins))]
    assert sums == bins.tokens.tolist() == bins.sums(mix["lengths"]).tolist()
    assert all(0 < total <= CAPACITY for total in sums)
    assert all(bins[number].tolist() == sorted(bins[number]) for number in range(len(bins)))


@given(mixes())
def test_the_same_mix_is_packed_the_same(mix: dict[str, Any]) -> None:
    assert same(pack(**mix), pack(**mix))


@given(mixes())
def test_an_example_leaves_with_its_window_or_the_next(mix: dict[str, Any]) -> None:
    bins, window = pack(**mix), mix["window"]
    newest = -1
    for number in range(len(bins)):
        members = bins[number] // window
        assert members[-1] - members[0] <= 1
        # Once a bin with an example of window w has left, those before w - 1 are all gone.
        assert members[0] >= newest - 1
        newest = max(newest, int(members[-1]))


@given(mixes(), mixes())
def test_a_longer_mix_begins_with_the_settled_bins(
    mix: dict[str, Any], more: dict[str, Any]
) -> None:
    short = pack(**mix)
    longer = dict(mix)
    for name in ("lengths", "agent", "trained"):
        if mix[name] is not None:
            tail = more[name] if more[name] is not None else np.zeros_like(more["lengths"])
            longer[name] = np.concatenate([mix[name], tail]).astype(mix[name].dtype)
    # The last window of the short mix may be incomplete, and is the longer one's, completed.
    assert same(short.head(short.settled), pack(**longer).head(short.settled))
    if len(mix["lengths"]) > 2 * mix["window"]:
        assert short.settled > 0


def test_examples_as_long_as_a_row_have_one_to_themselves() -> None:
    bins = pack(np.full(10, CAPACITY), capacity=CAPACITY, window=3, batch=4)
    assert bins.positions.tolist() == list(range(10))
    assert bins.tokens.tolist() == [CAPACITY] * 10
    assert bins.fill == 1.0


def test_bins_that_are_not_full_are_filled_by_the_next_window() -> None:
    # Alone, each window of three would leave two half-empty bins.
    bins = pack(np.array([40, 40, 40, 24, 24, 24]), capacity=CAPACITY, window=3)
    assert bins.tokens.tolist() == [CAPACITY] * 3


def test_no_example_no_bin() -> None:
    bins = pack(np.array([], dtype=int), capacity=CAPACITY, agent=np.array([], dtype=bool))
    assert (len(bins), bins.fill, bins.settled) == (0, 1.0, 0)


@pytest.mark.parametrize("number", [-1, 0, 1])
def test_bins_are_numbered_from_either_end(number: int) -> None:
    bins = pack(np.array([60, 50]), capacity=CAPACITY)
    assert bins[number].tolist() == [abs(number)]
    with pytest.raises(IndexError, match="bin 2 of 2"):
        bins[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lengths": [3, 65]}, "example 1: found 65 tokens, expected 1 to 64"),
        ({"lengths": [3, 0]}, "example 1: found 0 tokens"),
        ({"capacity": 0}, "capacity: found 0"),
        ({"batch": 0}, "batch: found 0"),
        ({"window": 0}, "window: found 0"),
        ({"window": MAX_WINDOW + 1}, "window: found 65537, expected at most 65536"),
        ({"agent": [True]}, "agent: found 1 values, expected 2"),
        ({"trained": [1, 2, 3]}, "trained: found 3 values, expected 2"),
    ],
)
def test_what_cannot_be_packed_is_refused(arguments: dict[str, Any], message: str) -> None:
    given = {"lengths": [3, 4], "capacity": CAPACITY} | arguments
    columns = {k: np.array(v) for k, v in given.items() if isinstance(v, list)}
    with pytest.raises(ConfigError, match=message):
        pack(**(given | columns))


# Lengths like the real ones at 4,096 tokens (trl.md, section 3): agent data short and alike.
def rows(rng: np.random.Generator) -> tuple[Any, Any, Any]:
    agent = np.clip(rng.lognormal(6.7, 0.5, 700), 60, 4096).astype(int)
    general = np.clip(rng.normal(1480, 700, 9000), 20, 4096).astype(int)
    lengths = np.concatenate([agent, general])
    trained = np.concatenate([agent // 4, general * 3 // 4])
    return lengths, np.arange(len(lengths)) < len(agent), trained


@pytest.fixture(scope="module")
def mix() -> tuple[Any, Any, Any]:
    """Lengths, whether agent data, and trained tokens of 20,000 examples of a mix."""
    lengths, agent, trained = rows(np.random.default_rng(0))
    sizes = int(agent.sum()), int((~agent).sum())
    order = MixOrder(*sizes, ETA, 7, 20_000).indices()
    return lengths[order], agent[order], trained[order]


def shares(bins: Bins, agent: Any, weights: Any, batch: int) -> Any:
    """Share of agent data in each whole global batch."""
    whole = len(bins) // batch * batch
    of_agent, of_all = (bins.sums(v)[:whole] for v in (agent * weights, weights))
    return of_agent.reshape(-1, batch).sum(axis=1) / of_all.reshape(-1, batch).sum(axis=1)


def test_rows_are_full(mix: Any) -> None:
    lengths, agent, trained = mix
    bins = pack(lengths, capacity=4096, batch=64, agent=agent, trained=trained)
    assert bins.fill >= 0.997


@pytest.mark.parametrize(("batch", "examples", "tokens"), [(64, 0.01, 0.01), (8, 0.05, 0.03)])
def test_every_batch_keeps_the_share_of_agent_data(
    mix: Any, batch: int, examples: float, tokens: float
) -> None:
    lengths, agent, trained = mix
    ones = np.ones_like(lengths)
    packed = {"capacity": 4096, "batch": batch}
    dealt = pack(lengths, **packed, agent=agent, trained=trained)
    undealt = pack(lengths, **packed)
    found = shares(dealt, agent, ones, batch)
    assert abs(found.mean() - ETA) < 0.002
    assert found.std() < examples / 2
    assert found.std() < shares(undealt, agent, ones, batch).std() / 3
    of_tokens = shares(dealt, agent, trained, batch)
    assert of_tokens.std() < tokens / 2
    assert of_tokens.std() < shares(undealt, agent, trained, batch).std() / 2


def test_examples_stay_near_their_place(mix: Any) -> None:
    lengths, agent, trained = mix
    bins = pack(lengths, capacity=4096, batch=64, window=500, agent=agent, trained=trained)
    moved = np.abs(bins.positions - np.arange(len(lengths)))
    assert moved.max() < 2 * 500
    assert moved.mean() < 500 / 2


def test_a_run_shorter_than_a_window_has_its_part_of_agent_data() -> None:
    # Ten agent examples to a bin and two others: batches of two bins cannot be even.
    agent = np.arange(600) % 5 == 0
    lengths = np.where(agent, 6, 31)
    bins = pack(lengths, capacity=CAPACITY, batch=2, agent=agent, window=600)
    assert bins.sums(agent).max() == 10
    for count in range(2, len(bins) + 1, 2):
        members = agent[bins.head(count).positions]
        assert abs(members.sum() - ETA * len(members)) <= 10


@pytest.fixture
def draw() -> Callable[[int], Any]:
    return lambda n: MixOrder(700, 9000, ETA, 7, -(-n // 64) * 64).indices()


def test_as_many_examples_are_drawn_as_fill_the_rows(draw: Callable[[int], Any]) -> None:
    lengths, agent, trained = rows(np.random.default_rng(0))
    settings: dict[str, Any] = {"capacity": 4096, "batch": 8, "agent": agent, "trained": trained}
    order, bins = pack_to_fill(draw, lengths, 800, **settings)
    assert len(bins) == 800
    assert bins.fill >= 0.996
    assert sorted(bins.positions.tolist()) == list(range(len(bins.positions)))
    assert len(bins.positions) <= len(order)
    longer = draw(3 * len(order))
    assert order.tolist() == longer[: len(order)].tolist()
    drawn = {"capacity": 4096, "batch": 8, "agent": agent[longer], "trained": trained[longer]}
    whole = pack(lengths[longer], **drawn, rows=longer)
    assert 600 < bins.settled < 800
    assert same(bins.head(bins.settled), whole.head(bins.settled))


@pytest.mark.parametrize("seed", range(5))
def test_any_number_of_rows_is_filled_by_the_first_examples(seed: int) -> None:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, CAPACITY + 1, 200)
    for count in (1, 2, 7, 30, 60):
        bins = pack_exactly(lengths, count, capacity=CAPACITY, window=int(draw.integers(3, 40)))
        assert bins is not None
        assert len(bins) == count
        number = len(bins.positions)
        assert bins.tokens.max() <= CAPACITY
        assert sorted(bins.positions.tolist()) == list(range(number))
    assert pack_exactly(lengths[:5], 60, capacity=CAPACITY, window=10) is None


def test_no_bin_takes_a_copy() -> None:
    rows = np.tile(np.arange(4), 5)
    bins = pack(np.full(20, 8), capacity=CAPACITY, window=20, rows=rows)
    assert [sorted(rows[members].tolist()) for members in bins] == [[0, 1, 2, 3]] * 5
    assert pack(np.full(20, 8), capacity=CAPACITY, window=20).tokens.tolist() == [64, 64, 32]


def test_rows_that_hardly_fill_are_drawn_for_until_there_are_enough() -> None:
    def draw(n: int) -> Any:
        return np.arange(n) % 5

    # No two fit together, so a row holds one example of 33 tokens.
    _, bins = pack_to_fill(draw, np.full(5, 33), 400, capacity=CAPACITY, batch=4, window=10)
    assert bins.tokens.tolist() == [33] * 400
    with pytest.raises(ConfigError, match="count: found 0"):
        pack_to_fill(draw, np.full(5, 33), 0, capacity=CAPACITY, batch=4)
