"""eta-sampling: which row of which source stands at which position of training.

AgentTuning minimises J = eta * E_agent + (1 - eta) * E_general (paper, section 2.3), and
its authors sample by ratio: every example is agent data with probability eta. The agent
set is small (1,866 trajectories) against what 2,000 steps consume, so its rows come back
some dozens of times; joining the two sets for one epoch is another method.

`MixOrder` is a pure function from position to row. Agent positions are spread evenly:
within any block of positions their number is eta times the block's size to within one
row, so no batch is without them by bad luck, while their place within a block is random.
Each pass over a source is a fresh permutation.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dataset_builders.errors import ConfigError

if TYPE_CHECKING:
    from datasets import Dataset

BLOCK = 64
"""Default number of positions in which the agent share is held: the paper's batch size."""

Index = npt.NDArray[np.int64]
_Word = npt.NDArray[np.uint64]

_AGENT, _GENERAL, _PLACES = 1, 2, 3
_ROUNDS = 6


@dataclass(frozen=True, slots=True)
class MixOrder:
    """The order of an eta-mix over two sources.

    Attributes:
        num_agent: Rows of the agent source; may be 0 if eta is 0.
        num_general: Rows of the general source; may be 0 if eta is 1.
        eta: Probability in [0, 1] that an example is agent data.
        seed: Any integer; the order is a function of it.
        num_examples: Length of the mix. Its share of agent data is eta to within half a
            row: a last, incomplete block gets the quota of its own size.
        block: Number of positions in which the share is held to within one row; the
            global batch size, so that every optimizer step sees it.

    Raises:
        ConfigError: A number is out of range, or a source that eta needs is empty.
    """

    num_agent: int
    num_general: int
    eta: float
    seed: int
    num_examples: int
    block: int = BLOCK

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"eta: found {self.eta}, expected a probability in [0, 1]")
        if self.num_examples < 1:
            raise ConfigError(f"num_examples: found {self.num_examples}, expected at least 1")
        if self.block < 1:
            raise ConfigError(f"block: found {self.block}, expected at least 1")
        if self.eta > 0 and self.num_agent < 1:
            raise ConfigError(f"eta is {self.eta}, but there is no agent data (eta 0 needs none)")
        if self.eta < 1 and self.num_general < 1:
            raise ConfigError(f"eta is {self.eta}, but there is no general data (eta 1 needs none)")

    def is_agent(self, positions: Index) -> npt.NDArray[np.bool_]:
        """Whether the examples at these positions are agent data; shape as given."""
        block = positions // self.block
        start = block * self.block
        end = np.minimum(start + self.block, self.num_examples)
        quota = self._agent_before(end) - self._agent_before(start)
        place = _permute(positions - start, end - start, self._key(_PLACES, block))
        return place < quota

    def rows(self, positions: Index) -> tuple[npt.NDArray[np.bool_], Index]:
        """Source and row at any positions below `num_examples`, in any order.

        Args:
            positions: Example numbers from 0, shape (N,).

        Returns:
            (N,) bool, true for agent data, and (N,) int64, the row in that source.
        """
        agent = self.is_agent(positions)
        before = self._agent_until(positions)
        row = np.empty(len(positions), dtype=np.int64)
        for source, size, chosen, rank in (
            (_AGENT, self.num_agent, agent, before),
            (_GENERAL, self.num_general, ~agent, positions - before),
        ):
            ranks = rank[chosen]
            if ranks.size:
                key = self._key(source, ranks // size)
                row[chosen] = _permute(ranks % size, np.full(ranks.shape, size), key)
        return agent, row

    def indices(self) -> Index:
        """All rows in order, the sources put one after the other, agent first."""
        agent, row = self.rows(np.arange(self.num_examples, dtype=np.int64))
        return np.where(agent, row, row + self.num_agent)

    def _agent_before(self, borders: Index) -> Index:
        """Agent examples before each block border: the nearest integer to eta times it."""
        share = Fraction(self.eta).limit_denominator(1_000_000)
        num, den = share.numerator, share.denominator
        return (2 * num * borders + den) // (2 * den)

    def _agent_until(self, positions: Index) -> Index:
        """Agent examples before each position, which may lie within a block."""
        blocks, where = np.unique(positions // self.block, return_inverse=True)
        grid = blocks[:, None] * self.block + np.arange(self.block)
        inside = np.zeros((len(blocks), self.block + 1), dtype=np.int64)
        agent = self.is_agent(np.minimum(grid, self.num_examples - 1).ravel())
        np.cumsum(agent.reshape(grid.shape), axis=1, out=inside[:, 1:])
        return (
            self._agent_before(blocks * self.block)[where] + inside[where, positions % self.block]
        )

    def _key(self, stream: int, number: Index) -> _Word:
        base = np.uint64((self.seed * 4 + stream) % 2**64)
        return _scramble(_scramble(np.full(number.shape, base)) ^ number.astype(np.uint64))


def _scramble(words: _Word) -> _Word:
    """The splitmix64 finaliser, a bijection on 64-bit words that mixes every bit.

    Written out rather than taken from numpy.random, whose streams may change between
    releases: a seed has to mean the same order for as long as a run can be resumed.
    """
    with np.errstate(over="ignore"):
        words = words + np.uint64(0x9E3779B97F4A7C15)
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return words ^ (words >> np.uint64(31))


def _permute(values: Index, size: Index, key: _Word) -> Index:
    """Image of each value under a permutation of range(size) chosen by its key.

    A Feistel network over the next even power of two, walked until it lands inside of
    the range, so that one position costs the same as any other and nothing is stored.
    """
    bits = np.ceil(np.log2(np.maximum(size, 2))).astype(np.uint64)
    half = (bits + np.uint64(1)) // np.uint64(2)
    mask = (np.uint64(1) << half) - np.uint64(1)
    result = values.astype(np.uint64)
    pending = np.arange(len(values))
    while pending.size:
        shift, low, salt = half[pending], mask[pending], key[pending]
        left, right = result[pending] >> shift, result[pending] & low
        for number in range(_ROUNDS):
            mixed = _scramble(right ^ _scramble(salt ^ np.uint64(number)))
            left, right = right, left ^ (mixed & low)
        result[pending] = (left << shift) | right
        pending = pending[result[pending] >= size[pending].astype(np.uint64)]
    return result.astype(np.int64)


def mix_datasets(
    agent: Dataset | None,
    general: Dataset | None,
    *,
    eta: float,
    num_examples: int,
    seed: int,
    block: int = BLOCK,
) -> Dataset:
    """Mix two datasets of the same columns; the result is a view, no row is copied.

    Args:
        agent: Agent rows; may be none or empty if eta is 0.
        general: General rows; may be none or empty if eta is 1.
        eta: Probability in [0, 1] that an example is agent data.
        num_examples: Length of the mix. Rows come back in freshly shuffled passes, so it
            may exceed the sources' sizes.
        seed: Any integer.
        block: See `MixOrder`.

    Raises:
        ConfigError: See `MixOrder`; or the columns differ.
    """
    from datasets import concatenate_datasets

    # A source without any share does not take part, so its columns need not match.
    agent = agent if eta > 0 else None
    general = general if eta < 1 else None
    order = MixOrder(len(agent or ()), len(general or ()), eta, seed, num_examples, block)
    parts = [part for part in (agent, general) if part is not None]
    if len({tuple(sorted(part.column_names)) for part in parts}) > 1:
        raise ConfigError(
            f"the sources' columns differ: agent {agent and agent.column_names}, "
            f"general {general and general.column_names}"
        )
    return concatenate_datasets(parts).select(order.indices())
