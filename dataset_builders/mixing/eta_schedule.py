"""Schedule of two parts over positions, in given shares.

The positions are divided into blocks. Each block has a quota for the first part, and a keyed
permutation of the block's places decides where it goes. So a block's composition and the number of
firsts before it are known without looking at any other block.

Two ways to set the quotas: *stratified*, where the number of firsts up to any block border
is the nearest integer to what the shares ask for; and *iid*, where each block's quota is
drawn from the binomial distribution, so that every position belongs to the first part with the
given probability, independently of all others: exactly the paper's sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import lgamma, log, log1p
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from dataset_builders.errors import ConfigError
from dataset_builders.mixing.permutation import Index, Reals, keys, permute, uniforms

Mode = Literal["stratified", "iid"]
MODES: tuple[str, ...] = get_args(Mode)


class QuotaStage(NamedTuple):
    """A share that applies from a position up to the next stage.

    A recipe's `EtaStage` begins at an optimizer step instead; `plan_of` converts it.

    Attributes:
        start: First position, from 0.
        share: Share of the first part, in [0, 1].
    """

    start: int
    share: float


Eta = float | tuple[QuotaStage, ...]
"""A share of agent examples, or stages of it over positions."""


def as_stages(eta: Eta) -> tuple[QuotaStage, ...]:
    """Return a share as stages; a number is one stage from position 0."""
    if isinstance(eta, tuple):
        return tuple(QuotaStage(int(start), float(share)) for start, share in eta)
    return (QuotaStage(0, float(eta)),)


def check_eta(stages: Sequence[QuotaStage]) -> None:
    """Check the stages of eta.

    Raises:
        ConfigError: A share is outside of [0, 1], there is no stage, the first does not
            begin at 0, or starts do not ascend.
    """
    for stage in stages:
        if not 0 <= stage.share <= 1:
            raise ConfigError(f"eta: found {stage.share}, expected a probability in [0, 1]")
    starts = [stage.start for stage in stages]
    if not starts or starts[0] != 0 or any(b <= a for a, b in pairwise(starts)):
        raise ConfigError(f"eta: found stages from {starts}, expected ascending starts from 0")


@dataclass(frozen=True, slots=True)
class QuotaSchedule:
    """Interleaving of two parts over a sequence of positions.

    Attributes:
        stages: Shares of the first part, the first stage at 0, starts ascending.
        length: Number of positions.
        block: Positions in a block. The last one may be shorter and gets the quota of its
            own size.
        seed: Any integer.
        stream: Separates this schedule from others of the same seed; uses `stream` and
            `stream + 1`.
        mode: How quotas are set.
    """

    stages: tuple[QuotaStage, ...]
    length: int
    block: int
    seed: int
    stream: int
    mode: Mode = "stratified"

    @property
    def num_first(self) -> int:
        """Return the number of positions of the first part."""
        return int(self._before(np.array([-(-self.length // self.block)]))[0])

    def assign(self, positions: Index) -> tuple[npt.NDArray[np.bool_], Index]:
        """Return part and rank at any positions, in any order.

        Args:
            positions: (N,) positions from 0, below `length`.

        Returns:
            (N,) bool, true for the first part, and (N,) int64, the number of earlier
            positions of the same part.
        """
        blocks, where = np.unique(positions // self.block, return_inverse=True)
        first = self._places(blocks)
        earlier: Index = np.cumsum(first, axis=1) - first
        inside = positions % self.block
        chosen = first[where, inside]
        rank = self._before(blocks)[where] + earlier[where, inside]
        return chosen, np.where(chosen, rank, positions - rank)

    def _places(self, blocks: Index) -> npt.NDArray[np.bool_]:
        """Return whether each place of each block is the first part's, (blocks, block)."""
        start = blocks * self.block
        size = np.minimum(self.length - start, self.block)
        quota = self._before(blocks + 1) - self._before(blocks)
        place = np.broadcast_to(np.arange(self.block), (len(blocks), self.block))
        # Places beyond the end of the last block are unused.
        valid = place < size[:, None]
        key = np.broadcast_to(keys(self.seed, self.stream, blocks)[:, None], place.shape)
        sizes = np.broadcast_to(size[:, None], place.shape)
        result = np.zeros(place.shape, dtype=bool)
        limit = np.broadcast_to(quota[:, None], place.shape)
        result[valid] = permute(place[valid], sizes[valid], key[valid]) < limit[valid]
        return result

    def _before(self, blocks: Index) -> Index:
        """Return the number of first-part positions before each block."""
        if self.mode == "iid":
            table = _drawn(self.stages, self.length, self.block, self.seed, self.stream + 1)
            return table[blocks]
        borders = np.minimum(blocks * self.block, self.length)
        return np.floor(_expected(self.stages, borders) + 0.5).astype(np.int64)


def _expected(stages: Sequence[QuotaStage], borders: Index) -> Reals:
    """Return the expected number of first-part positions before each position.

    In doubles, each step one multiplication or addition, which all machines round identically.
    """
    total = np.zeros(len(borders))
    for number, (start, share) in enumerate(stages):
        end = stages[number + 1].start if number + 1 < len(stages) else None
        total += np.clip(borders, start, end) * share - start * share
    return total


@lru_cache(maxsize=64)
def _drawn(
    stages: tuple[QuotaStage, ...], length: int, block: int, seed: int, stream: int
) -> Index:
    """Return firsts before each block with binomial quotas; one more entry than blocks."""
    blocks = np.arange(-(-length // block), dtype=np.int64)
    start = blocks * block
    end = np.minimum(start + block, length)
    # A block in which a stage begins uses the mean share of its positions.
    share = (_expected(stages, end) - _expected(stages, start)) / (end - start)
    uniform = uniforms(keys(seed, stream, blocks))
    quota = np.zeros(len(blocks), dtype=np.int64)
    kinds, which = np.unique(np.stack([end - start, share]), axis=1, return_inverse=True)
    for number, (size, chance) in enumerate(kinds.T):
        chosen = which.ravel() == number
        cumulated = _binomial(int(size), min(1.0, max(0.0, float(chance))))
        quota[chosen] = np.searchsorted(cumulated, uniform[chosen], side="right")
    table = np.concatenate([[0], np.cumsum(quota)])
    table.setflags(write=False)
    return table


def _binomial(size: int, chance: float) -> Reals:
    """Return the cumulative probabilities of 0 to size - 1 successes."""
    if chance in (0.0, 1.0):
        return np.full(size, 1.0 - chance)
    logs = [
        lgamma(size + 1) - lgamma(k + 1) - lgamma(size - k + 1)
        + k * log(chance) + (size - k) * log1p(-chance)
        for k in range(size)
    ]  # fmt: skip
    return np.cumsum(np.exp(logs))
