"""Report of a mix: realised shares, and how often each row occurs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dataset_builders.encoding.row_index import is_encoded
from dataset_builders.mixing.planning import MixSchedule, Plan, counts_of

if TYPE_CHECKING:
    import pyarrow as pa

    from dataset_builders.mixing.permutation import Index


def loss_shares(agent: npt.NDArray[np.bool_], trained: Index, batches: Index) -> dict[str, float]:
    """Return agent data's share of the loss, for each normalisation of the loss.

    Args:
        agent: (N,) bool, whether each example is agent data.
        trained: (N,) int64, trained tokens of each.
        batches: (N,) int64, its global batch, from 0.

    Returns:
        Means over batches, each of weight 1: "tokens", of the share of trained tokens;
        "examples", of the share of examples.
    """
    found = {}
    for name, weights in (("tokens", trained), ("examples", np.ones_like(trained))):
        whole = np.bincount(batches, weights)
        part = np.bincount(batches, weights * agent)
        found[name] = round(float((part / np.maximum(whole, 1)).mean()), 6)
    return found


def repeat_rate(rows: Index, groups: Index, num_agent: int) -> dict[str, float]:
    """Return the share of examples that repeat another of the same packed row or batch.

    Args:
        rows: (N,) int64, the row of each example, agent rows first.
        groups: (N,) int64, the packed row or batch of each example.
        num_agent: Agent rows.

    Returns:
        Of the examples of each side the share that is a further copy within its group, in
        [0, 1]; 0 for a side without examples.
    """
    pairs = np.unique(np.stack([groups, rows]), axis=1)[1]
    found = {}
    for side, drawn, distinct in (
        ("agent", rows < num_agent, pairs < num_agent),
        ("general", rows >= num_agent, pairs >= num_agent),
    ):
        number = int(drawn.sum())
        found[side] = round(1 - int(distinct.sum()) / number, 6) if number else 0.0
    return found


def describe_mix(
    planned: MixSchedule, plan: Plan, agent: pa.Table | None, general: pa.Table | None
) -> dict[str, Any]:
    """Return the realised shares of agent data, in examples, tokens and trained tokens.

    Shares of tokens are given only for encoded rows, and repeats within a batch (a block of the
    order), and the share of the loss, only without packing.

    Args:
        planned: The order of the mix.
        plan: The plan it was made from.
        agent: Index of the agent rows, or none.
        general: Index of the general rows, or none.
    """
    order, times = planned.order, planned.exposures
    number = int(times.sum())
    of_agent = times[: order.num_agent]
    agent_rows = int(of_agent.sum())
    wanted = plan.eta if isinstance(plan.eta, tuple) else float(plan.eta)
    facts: dict[str, Any] = {
        "examples": number,
        "agent_examples": agent_rows,
        "eta": wanted,
        "eta_unit": plan.unit,
        "sampling": plan.mode,
        "seed": order.seed,
        "block": order.block,
        "share_of_examples": round(agent_rows / number, 6),
        "agent_passes": _passes(of_agent),
        "general_passes": _passes(times[order.num_agent :]),
    }
    if planned.positions is None:  # Packed rows are described separately.
        rows = order.indices()
        facts["repeats_in_batch"] = repeat_rate(
            rows, np.arange(len(rows)) // order.block, order.num_agent
        )
    agent = agent if order.num_agent else None
    general = general if order.num_general else None
    if all(is_encoded(part) for part in (agent, general) if part is not None):
        for column in ("tokens", "trained_tokens"):
            drawn = counts_of(agent, general, column) * times
            share = drawn[: order.num_agent].sum() / max(1, drawn.sum())
            facts[f"share_of_{column}"] = round(float(share), 6)
            facts[column] = int(drawn.sum())
        if planned.positions is None:
            rows = order.indices()
            trained = counts_of(agent, general, "trained_tokens")[rows]
            batches = np.arange(len(rows)) // order.block
            facts["share_of_loss"] = loss_shares(rows < order.num_agent, trained, batches)
    return facts


def _passes(times: Index) -> float:
    return round(float(times.mean()), 2) if len(times) else 0.0
