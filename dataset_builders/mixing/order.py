"""eta-sampling: which row of which source comes at which position of training.

AgentTuning minimises J = eta * E_agent + (1 - eta) * E_general (paper, section 2.3), and
its authors sample by ratio: every example is agent data with probability eta. The agent set is
small (1,866 trajectories) compared with what 2,000 steps consume, so its rows repeat dozens of
times; concatenating the two sets for one epoch is a different method.

`MixOrder` is a pure function from position to row. By default agent positions are spread
evenly: within any block of positions their number is eta times the block's size to within
one row, so no batch lacks them by chance, while their place within a block is random. Each pass
over a source is a new permutation, in which no row comes near its place in the last pass: a batch
holds a row twice only if it takes more rows than there are. Within agent and general data, *pools*
may have shares of their own (GPT-4's conversations in the general data, a task in the agent data).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from dataset_builders.errors import ConfigError
from dataset_builders.mixing.eta_schedule import (
    MODES,
    Eta,
    Mode,
    QuotaSchedule,
    QuotaStage,
    as_stages,
    check_eta,
)
from dataset_builders.mixing.permutation import Index, keys, permute

if TYPE_CHECKING:
    from datasets import Dataset

BLOCK = 64
"""Default number of positions within which the agent share is exact: the paper's batch size."""

_CHUNK = 1 << 15  # positions per chunk: fits the processor's cache

_ROOT, _AGENT, _GENERAL = 0, 1 << 32, 2 << 32  # key streams, with room for pools
_DEALT = 4 << 32  # offset to a stream for the groups of its rows


class Pool(NamedTuple):
    """Rows of a source that share one weight.

    Attributes:
        rows: (N,) int64, row numbers within the source, at least one.
        weight: Share within the source, relative to the other pools'; above 0.
    """

    rows: Index
    weight: float


@dataclass(frozen=True, eq=False)
class MixOrder:
    """Row order of an eta-mix over two sources.

    Attributes:
        num_agent: Rows of the agent source; may be 0 if eta is 0.
        num_general: Rows of the general source; may be 0 if eta is 1.
        eta: Probability in [0, 1] that an example is agent data, or stages of it.
        seed: Any integer; the order is a function of it.
        num_examples: Length of the mix. Its share of agent data is eta to within half a
            row: a last, incomplete block gets the quota of its own size.
        block: Number of positions in which the share is held to within one row; the global batch
            size, so that it holds in every optimizer step.
        mode: "stratified", or "iid" for the paper's independent draws.
        agent_pools: Pools of the agent source; none: all of its rows are drawn alike.
        general_pools: The same of the general source.

    Raises:
        ConfigError: A number is out of range, or a source that eta needs is empty.
    """

    num_agent: int
    num_general: int
    eta: Eta
    seed: int
    num_examples: int
    block: int = BLOCK
    mode: Mode = "stratified"
    agent_pools: tuple[Pool, ...] = ()
    general_pools: tuple[Pool, ...] = ()

    def __post_init__(self) -> None:
        check_mix(
            *(self.num_agent, self.num_general, self.eta),
            *(self.num_examples, self.block, self.mode),
        )

    @property
    def stages(self) -> tuple[QuotaStage, ...]:
        """Return eta as stages over positions, a single one if it is a number."""
        return as_stages(self.eta)

    def is_agent(self, positions: Index) -> npt.NDArray[np.bool_]:
        """Return whether the examples at these positions are agent data; same shape."""
        return self._root.assign(positions)[0]

    def rows(self, positions: Index) -> tuple[npt.NDArray[np.bool_], Index]:
        """Return source and row at any positions below `num_examples`, in any order.

        Args:
            positions: Example numbers from 0, shape (N,).

        Returns:
            (N,) bool, true for agent data, and (N,) int64, the row in that source.
        """
        root = self._root
        agent, rank = root.assign(positions)
        row = np.empty(len(positions), dtype=np.int64)
        num_agent = root.num_first
        shares = [stage.share for stage in self.stages]
        if agent.any():
            source = _Source(self.num_agent, num_agent, self._together(max(shares)))
            row[agent] = self._draw(self.agent_pools, source, rank[agent], _AGENT)
        if not agent.all():
            others = self.num_examples - num_agent
            source = _Source(self.num_general, others, self._together(1 - min(shares)))
            row[~agent] = self._draw(self.general_pools, source, rank[~agent], _GENERAL)
        return agent, row

    def _together(self, share: float, among: int | None = None) -> int:
        """Return the maximum number of a share's examples in a block, or in fewer positions."""
        number = self.block if among is None else among
        spread = 4 * math.sqrt(number * share * (1 - share)) if self.mode == "iid" else 0.0
        return min(number, math.ceil(number * share + spread) + 1)

    def indices(self) -> Index:
        """Return all rows in order, numbered over both sources, agent first; read only."""
        return self._indices

    @cached_property
    def _indices(self) -> Index:
        whole = self.slice(0, self.num_examples)
        whole.setflags(write=False)
        return whole

    def slice(self, start: int, end: int) -> Index:
        """Return a range of `indices()` without computing the rest."""
        result = np.empty(end - start, dtype=np.int64)
        for first in range(start, end, _CHUNK):
            positions = np.arange(first, min(first + _CHUNK, end), dtype=np.int64)
            agent, row = self.rows(positions)
            result[positions - start] = np.where(agent, row, row + self.num_agent)
        return result

    @property
    def _root(self) -> QuotaSchedule:
        return QuotaSchedule(
            self.stages, self.num_examples, self.block, self.seed, _ROOT, self.mode
        )

    def _draw(self, pools: Sequence[Pool], source: _Source, ranks: Index, stream: int) -> Index:
        """Return the rows at these ranks of one source.

        Pools are scheduled in whole blocks, so a longer mix begins with the same rows.
        """
        if len(pools) < 2:
            rows = pools[0].rows if pools else None
            return _passes(rows, source, ranks, self.seed, stream)
        weights = np.array([pool.weight for pool in pools], dtype=np.float64)
        share = float(weights[0] / weights.sum())
        length = -(-source.length // self.block) * self.block
        split = QuotaSchedule(
            as_stages(share), length, self.block, self.seed, stream + 1, self.mode
        )
        first, inner = split.assign(ranks)
        row = np.empty(len(ranks), dtype=np.int64)
        num_first = split.num_first
        here = source._replace(length=num_first, together=self._together(share, source.together))
        row[first] = _passes(pools[0].rows, here, inner[first], self.seed, stream)
        if not first.all():
            rest = source._replace(
                length=length - num_first, together=self._together(1 - share, source.together)
            )
            row[~first] = self._draw(pools[1:], rest, inner[~first], stream + 4)
        return row


class _Source(NamedTuple):
    """A source or pool to draw from.

    Attributes:
        size: Rows of the source.
        length: Ranks in all.
        together: Ranks in a row that a batch takes, at most.
    """

    size: int
    length: int
    together: int


def _passes(rows: Index | None, source: _Source, ranks: Index, seed: int, stream: int) -> Index:
    """Return the row at each rank: successive permutations, each with its own keys.

    The rows are dealt to groups once; each pass visits the groups in turn and permutes each of
    them anew. So a row comes again after all but its group's rows: with two groups after half
    a pass, and with smaller ones where a batch takes more than that.
    """
    size = source.size if rows is None else len(rows)
    half = -(-size // 2)
    group = min(half, size - source.together + 1) if size >= source.together else half
    count, (number, place) = -(-size // group), np.divmod(ranks, size)
    which, inner = np.divmod(place, group)
    sizes = np.minimum(group, size - which * group)
    place = which * group + permute(inner, sizes, keys(seed, stream, number * count + which))
    whole = np.full(ranks.shape, size)
    found = permute(place, whole, keys(seed, stream + _DEALT, np.zeros_like(ranks)))
    return found if rows is None else rows[found]


def check_mix(
    num_agent: int, num_general: int, eta: Eta, num_examples: int, block: int, mode: str
) -> None:
    """Check the settings of a mix; nothing is computed.

    Args:
        num_agent: Rows of the agent source; before they are counted, whether there is one.
        num_general: The same of the general source.
        eta: See `MixOrder`, like the others.
        num_examples: Length of the mix.
        block: Number of positions in which the share is held.
        mode: How positions are drawn.

    Raises:
        ConfigError: A number is out of range, or a source that eta needs is empty.
    """
    stages = as_stages(eta)
    check_eta(stages)
    if num_examples < 1:
        raise ConfigError(f"num_examples: found {num_examples}, expected at least 1")
    if block < 1:
        raise ConfigError(f"block: found {block}, expected at least 1")
    if mode not in MODES:
        raise ConfigError(f"mode: found {mode!r}, expected one of {', '.join(MODES)}")
    shares = [stage.share for stage in stages]
    if max(shares) > 0 and num_agent < 1:
        raise ConfigError(f"eta is {max(shares)}, but there is no agent data (eta 0 needs none)")
    if min(shares) < 1 and num_general < 1:
        raise ConfigError(f"eta is {min(shares)}, but there is no general data (eta 1 needs none)")


def mix_datasets(
    agent: Dataset | None,
    general: Dataset | None,
    order: MixOrder,
) -> Dataset:
    """Mix two datasets with the same columns; the result is a view, no row is copied.

    Args:
        agent: Agent rows, as many as the order has; may be none or empty if eta is 0.
        general: General rows, likewise; may be none or empty if eta is 1.
        order: The order.

    Raises:
        ConfigError: The columns or the numbers of rows differ.
    """
    from datasets import concatenate_datasets

    indices = order.indices()
    shares = [stage.share for stage in order.stages]
    # A source with share 0 is not used, so its columns need not match.
    if max(shares) == 0:
        agent, indices = None, indices - order.num_agent
    elif len(agent or ()) != order.num_agent:
        raise ConfigError(f"agent: found {len(agent or ())} rows, the order has {order.num_agent}")
    if min(shares) == 1:
        general = None
    elif len(general or ()) != order.num_general:
        raise ConfigError(
            f"general: found {len(general or ())} rows, the order has {order.num_general}"
        )
    parts = [part for part in (agent, general) if part is not None]
    if len({tuple(sorted(part.column_names)) for part in parts}) > 1:
        raise ConfigError(
            f"the sources' columns differ: agent {agent and agent.column_names}, "
            f"general {general and general.column_names}"
        )
    return concatenate_datasets(parts).select(indices)
