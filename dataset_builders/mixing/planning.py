"""Plan of a mix, and the order that realises it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from dataset_builders.errors import ConfigError
from dataset_builders.mixing.eta_schedule import Eta, Mode, QuotaStage, as_stages
from dataset_builders.mixing.order import BLOCK, MixOrder, Pool
from dataset_builders.mixing.permutation import Index
from dataset_builders.mixing.pools import GPT4_SHARE, model_pools, weighted_pools
from dataset_builders.mixing.unit_conversion import UNITS, Unit, solve_example_rates

if TYPE_CHECKING:
    import pyarrow as pa

_COUNT = {"token": "tokens", "trained_token": "trained_tokens"}


@dataclass(frozen=True, slots=True)
class Plan:
    """Requested properties of a mix.

    Attributes:
        eta: Share of agent data in [0, 1], or stages of it over positions.
        unit: What eta counts: examples (the paper), tokens or trained tokens.
        mode: "stratified", or "iid" for the paper's independent draws.
        task_weights: Weight of each task within the agent data; empty: rows equally weighted.
        gpt4_share: Share of GPT-4's conversations within the general data, if they are known; None:
            rows equally weighted.
        agent_weights: Weight of each agent source, by its number; empty: rows equally weighted.
        general_weights: The same for general sources; replaces `gpt4_share`.
        block: Positions within which the share is exact, see `MixOrder`.
    """

    eta: Eta = 0.2
    unit: Unit = "example"
    mode: Mode = "stratified"
    task_weights: Mapping[str, float] = field(default_factory=dict)
    gpt4_share: float | None = GPT4_SHARE
    agent_weights: tuple[float, ...] = ()
    general_weights: tuple[float, ...] = ()
    block: int = BLOCK

    @property
    def needs_agent(self) -> bool:
        """Whether any example is agent data."""
        return max(stage.share for stage in as_stages(self.eta)) > 0

    @property
    def needs_general(self) -> bool:
        """Whether any example is general data."""
        return min(stage.share for stage in as_stages(self.eta)) < 1


@dataclass(frozen=True)
class MixSchedule:
    """An order that realises a plan.

    Attributes:
        order: The order; its eta is in examples.
        notes: What was, or could not be, applied; one line each.
        positions: (N,) positions of the order in training sequence, if packing changes it; None:
            unchanged.
    """

    order: MixOrder
    notes: tuple[str, ...] = ()
    positions: Index | None = None

    def row_sequence(self) -> Index:
        """Return the rows in training sequence, (N,) int64, agent rows first."""
        rows = self.order.indices()
        return rows if self.positions is None else rows[self.positions]

    @cached_property
    def exposures(self) -> Index:
        """How often each row comes, (A + G,) int64, agent rows first."""
        return np.bincount(
            self.row_sequence(), minlength=self.order.num_agent + self.order.num_general
        )


def make_order(
    plan: Plan,
    agent: pa.Table | None,
    general: pa.Table | None,
    *,
    seed: int,
    num_examples: int,
) -> MixSchedule:
    """Make the order of a mix.

    Args:
        plan: Its plan.
        agent: Index of the agent rows, see `row_index.INDEX`; none if there are none.
        general: Index of the general rows.
        seed: Any integer.
        num_examples: Length of the mix.

    Raises:
        ConfigError: A number is out of range, a side that eta needs is empty, weights do
            not fit the rows, or eta counts tokens of rows that are not encoded.
    """
    if plan.unit not in UNITS:
        raise ConfigError(f"eta_unit: found {plan.unit!r}, expected one of {', '.join(UNITS)}")
    agent = agent if plan.needs_agent else None
    general = general if plan.needs_general else None
    agent_pools = _agent_pools(plan, agent)
    general_pools, notes = _general_pools(plan, general)

    def make(stages: tuple[QuotaStage, ...]) -> MixOrder:
        return MixOrder(
            num_agent=_size(agent),
            num_general=_size(general),
            eta=stages,
            seed=seed,
            num_examples=num_examples,
            block=plan.block,
            mode=plan.mode,
            agent_pools=agent_pools,
            general_pools=general_pools,
        )

    stages = as_stages(plan.eta)
    make(stages)  # settings are validated before lengths are read
    if plan.unit != "example":
        stages = solve_example_rates(stages, make, counts_of(agent, general, _COUNT[plan.unit]))
    return MixSchedule(make(stages), notes)


def counts_of(agent: pa.Table | None, general: pa.Table | None, column: str) -> Index:
    """Return a column of both indices, agent rows first, (A + G,) int64.

    Raises:
        ConfigError: Rows are not encoded, so their tokens are unknown.
    """
    parts = [part[column].to_numpy() for part in (agent, general) if part is not None]
    found = np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, dtype=np.int64)
    if (found < 0).any():
        raise ConfigError("eta_unit: tokens can only be counted in encoded rows: give a tokenizer")
    return found


def _size(index: pa.Table | None) -> int:
    return 0 if index is None else len(index)


def _agent_pools(plan: Plan, agent: pa.Table | None) -> tuple[Pool, ...]:
    if agent is None or not (plan.task_weights or plan.agent_weights):
        return ()
    if plan.task_weights and plan.agent_weights:
        raise ConfigError("task_weights: found beside weights of agent sources, expected one")
    if plan.task_weights:
        return weighted_pools(_labels(agent, "task"), plan.task_weights, "task_weights")
    return _source_pools(agent, plan.agent_weights, "agent")


def _general_pools(
    plan: Plan, general: pa.Table | None
) -> tuple[tuple[Pool, ...], tuple[str, ...]]:
    if general is None:
        return (), ()
    if plan.general_weights:
        return _source_pools(general, plan.general_weights, "general"), ()
    if plan.gpt4_share is None:
        return (), ()
    if not 0 < plan.gpt4_share < 1:
        raise ConfigError(
            f"gpt4_share: found {plan.gpt4_share}, expected a share between 0 and 1, or none"
        )
    pools, note = model_pools(_labels(general, "model"), plan.gpt4_share)
    return pools, (note,)


def _source_pools(index: pa.Table, weights: tuple[float, ...], what: str) -> tuple[Pool, ...]:
    by_number = {str(number): weight for number, weight in enumerate(weights)}
    return weighted_pools(_labels(index, "entry"), by_number, f"{what}.weight")


def _labels(index: pa.Table, column: str) -> np.ndarray[Any, Any]:
    found = index[column].to_numpy(zero_copy_only=False)
    # Not a fixed-width array: one long name would cost its length in every row.
    return np.asarray(found, dtype=object)
