"""Row order of a mix whose examples are packed into rows of fixed length."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dataset_builders.errors import ConfigError
from dataset_builders.mixing.eta_schedule import QuotaStage, as_stages
from dataset_builders.mixing.order import MixOrder
from dataset_builders.mixing.packing import WINDOW, Bins, pack_exactly, pack_to_fill
from dataset_builders.mixing.permutation import Index
from dataset_builders.mixing.planning import MixSchedule, Plan, counts_of, make_order

if TYPE_CHECKING:
    import pyarrow as pa

_LEAST = 4
"""Minimum packed rows per window; with fewer, many would stay half empty."""


class Packing(NamedTuple):
    """Settings that decide, with an order, which examples share a packed row.

    Attributes:
        capacity: Tokens of a packed row.
        batch: Packed rows in a global batch.
        rows: Total packed rows: optimizer steps times global batch.
        window: Examples that are packed together, at most; see `window_of`.
    """

    capacity: int
    batch: int
    rows: int
    window: int = WINDOW


@dataclass(frozen=True, slots=True)
class PackedOrder:
    """An order and its packing.

    Attributes:
        plan: The plan, its stages of eta in positions.
        planned: The order, with the positions in the sequence of training.
        bins: Which positions each packed row holds.
    """

    plan: Plan
    planned: MixSchedule
    bins: Bins


def pack_plan(
    plan: Plan,
    agent: pa.Table | None,
    general: pa.Table | None,
    packing: Packing,
    *,
    seed: int,
    stages: Sequence[tuple[int, float]] = (),
) -> PackedOrder:
    """Draw and pack as many examples of a plan as fill the rows.

    Args:
        plan: Plan of the mix; its eta is one number.
        agent: Index of the agent rows, see `row_index.INDEX`; none if there are none.
        general: Index of the general rows.
        packing: Packing settings.
        seed: Any integer.
        stages: Packed row and share of agent data from there on, rows ascending. The
            border is exact in the mix; packing blurs it by a window to both sides.

    Raises:
        ConfigError: See `make_order` and `pack`.
    """
    counts = _Counts(agent if plan.needs_agent else None, general if plan.needs_general else None)
    for row, share in stages:
        if 0 < row < packing.rows:
            found = _fill(plan, counts, packing._replace(rows=row), seed)
            block = plan.block
            # As many examples as the rows before hold: the border lies within a window, and
            # as many of the new stage come before it as of the old one after it.
            start = max(1, round(len(found.bins.positions) / block)) * block
            plan = replace(plan, eta=(*as_stages(plan.eta), QuotaStage(start, share)))
            counts = _Counts(
                agent if plan.needs_agent else None, general if plan.needs_general else None
            )
    return _fill(plan, counts, packing, seed)


def bins_of(
    order: MixOrder, agent: pa.Table | None, general: pa.Table | None, packing: Packing
) -> Bins:
    """Recompute the packed rows of an order that `pack_plan` made, from its numbers alone.

    Args:
        order: The order.
        agent: Index of the agent rows.
        general: Index of the general rows.
        packing: Packing settings.

    Raises:
        ConfigError: See `pack`; or the order is too short.
    """
    counts = _Counts(agent, general)
    rows = order.indices()
    bins = pack_exactly(
        counts.lengths[rows],
        packing.rows,
        capacity=packing.capacity,
        batch=packing.batch,
        window=window_of(order, counts.lengths, packing),
        agent=rows < order.num_agent,
        trained=counts.trained[rows],
        rows=rows,
    )
    if bins is None:
        raise ConfigError(
            f"packing: found {order.num_examples} examples, too few for {packing.rows} packed rows"
        )
    return bins


def window_of(order: MixOrder, lengths: Index, packing: Packing) -> int:
    """Return the number of examples that are packed together.

    At most a quarter of the shortest pass over a source or pool: a row repeats after half a pass
    and an example waits for at most one window, so copies do not meet, and passes stay intact. But
    at least enough to fill `_LEAST` packed rows.

    Args:
        order: The order.
        lengths: (A + G,) int64, tokens of each row, agent rows first.
        packing: The settings; their window is the largest.
    """
    shares = [stage.share for stage in order.stages]
    sides = (
        (order.num_agent, max(shares), order.agent_pools, lengths[: order.num_agent]),
        (order.num_general, 1 - min(shares), order.general_pools, lengths[order.num_agent :]),
    )
    passes, means = [], []
    for size, share, pools, found in sides:
        if share > 0 and size:
            total = sum(pool.weight for pool in pools)
            parts = [(len(pool.rows), share * pool.weight / total) for pool in pools]
            passes += [rows / part for rows, part in parts or [(size, share)]]
            means.append(float(found.mean()))
    least = math.ceil(_LEAST * packing.capacity / max(1.0, min(means)))
    return max(1, min(packing.window, max(int(min(passes) / 4), least)))


class _Counts:
    """Token counts of the rows of both sides, agent rows first."""

    def __init__(self, agent: pa.Table | None, general: pa.Table | None) -> None:
        self.agent, self.general = agent, general
        self.lengths = counts_of(agent, general, "tokens")
        self.trained = counts_of(agent, general, "trained_tokens")
        self.is_agent = np.arange(len(self.lengths)) < (0 if agent is None else len(agent))


def _fill(plan: Plan, counts: _Counts, packing: Packing, seed: int) -> PackedOrder:
    mean = counts.lengths.mean() if len(counts.lengths) else 1
    about = plan.block * math.ceil(packing.rows * packing.capacity / mean / plan.block)
    while True:
        # What comes first must not depend on how many examples are drawn, so rates that give
        # shares of tokens are solved before, over at least as many as it takes.
        planned = make_order(plan, counts.agent, counts.general, seed=seed, num_examples=about)
        draw, drawn = _drawing(planned.order)
        _, bins = pack_to_fill(
            draw,
            counts.lengths,
            packing.rows,
            capacity=packing.capacity,
            batch=packing.batch,
            window=window_of(planned.order, counts.lengths, packing),
            agent=counts.is_agent,
            trained=counts.trained,
        )
        if plan.unit == "example" or drawn[-1].num_examples <= about:
            break
        about = -(-drawn[-1].num_examples * 21 // 20 // plan.block) * plan.block
    return PackedOrder(plan, replace(planned, order=drawn[-1], positions=bins.positions), bins)


def _drawing(order: MixOrder) -> tuple[Callable[[int], Index], list[MixOrder]]:
    """Return a function that draws examples in whole blocks, and the record of numbers drawn."""
    drawn: list[MixOrder] = []

    def draw(number: int) -> Index:
        whole = -(-number // order.block) * order.block
        drawn.append(replace(order, num_examples=whole))
        return drawn[-1].indices()

    return draw, drawn
