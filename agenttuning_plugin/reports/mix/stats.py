"""Figures of the report's tables and plots, JSON-ready."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dataset_builders.encoding.row_index import is_encoded
from dataset_builders.mixing.eta_schedule import as_stages
from dataset_builders.mixing.permutation import Index
from dataset_builders.mixing.planning import MixSchedule, Plan

if TYPE_CHECKING:
    import pyarrow as pa

SIDES = ("agent", "general")
UNITS = ("examples", "tokens", "trained_tokens")

_BINS = 48  # of a histogram of lengths
_WINDOWS = 100  # over a run
_MAX_GROUPS = 40  # lines of a table
_MAX_BARS = 16

Counts = dict[str, Index]
"""Count of each row in a unit, (A + G,) int64, agent rows first."""


def figures(
    planned: MixSchedule,
    plan: Plan,
    agent: pa.Table | None,
    general: pa.Table | None,
    max_length: int | None = None,
) -> dict[str, Any]:
    """Compute the figures of a mix.

    Args:
        planned: The order of the mix.
        plan: Its plan.
        agent: Index of the agent rows, see `row_index.INDEX`; ignored if the order has none.
        general: Index of the general rows, likewise.
        max_length: Maximum tokens of a row.

    Returns:
        `composition` by source, task and model; `lengths`, histograms; `eta_over_run`, shares
        of agent data in windows; `exposures`, how many rows come how often. What needs
        lengths is left out where rows are not encoded.
    """
    order = planned.order
    sides = {"agent": agent if order.num_agent else None}
    sides["general"] = general if order.num_general else None
    times = planned.exposures
    counts = _counts(sides, len(times))
    found: dict[str, Any] = {
        "composition": _composition(sides, counts, times, order.num_agent),
        "eta_over_run": _eta_over_run(planned, plan, counts),
        "exposures": {
            "agent": _exposures(times[: order.num_agent]),
            "general": _exposures(times[order.num_agent :]),
        },
    }
    if "tokens" in counts:
        found["lengths"] = {
            "max_length": max_length,
            **{unit: _lengths(counts[unit], order.num_agent, max_length) for unit in UNITS[1:]},
        }
    return found


def _counts(sides: dict[str, Any], length: int) -> Counts:
    counts = {"examples": np.ones(length, dtype=np.int64)}
    parts = [index for index in sides.values() if index is not None]
    if all(is_encoded(index) for index in parts):
        for unit in UNITS[1:]:
            values = [index[unit].to_numpy().astype(np.int64) for index in parts]
            counts[unit] = np.concatenate(values)
    return counts


def _composition(
    sides: dict[str, Any], counts: Counts, times: Index, num_agent: int
) -> dict[str, list[dict[str, Any]]]:
    """Count rows, tokens and trained tokens of each group, and what the mix draws of them."""
    drawn = {unit: values * times for unit, values in counts.items()}
    totals = {unit: max(1, int(values.sum())) for unit, values in drawn.items()}
    found: dict[str, list[dict[str, Any]]] = {"source": [], "task": [], "model": []}
    for column, table in found.items():
        for side, start in (("agent", 0), ("general", num_agent)):
            index = sides[side]
            if index is None or (column == "model" and not any(index["model"].to_pylist())):
                continue
            place = slice(start, start + len(index))
            for name, chosen in _groups(index, column):
                line: dict[str, Any] = {"side": side, "name": name}
                line |= {
                    {"examples": "rows"}.get(unit, unit): int(values[place][chosen].sum())
                    for unit, values in counts.items()
                }
                for unit, values in drawn.items():
                    number = int(values[place][chosen].sum())
                    line[f"drawn_{unit}"] = number
                    line[f"share_of_{unit}"] = round(number / totals[unit], 6)
                table.append(line)
    return found


def _groups(index: Any, column: str) -> list[tuple[str, Any]]:
    """Return names and row masks, most rows first; those beyond the limit merged."""
    labels = np.asarray(index[column].to_numpy(zero_copy_only=False), dtype=object)
    names, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    ranked = np.argsort(-sizes, kind="stable")
    kept = ranked[:_MAX_GROUPS]
    groups = [(str(names[number]), inverse == number) for number in kept]
    if len(ranked) > len(kept):
        others = ~np.isin(inverse, kept)
        groups.append((f"({len(ranked) - len(kept):,} others)", others))
    return groups


def _lengths(values: Index, num_agent: int, max_length: int | None) -> dict[str, Any]:
    top = max(int(values.max(initial=1)), 1)
    if max_length is not None and max_length < 2 * top:
        top = max(top, max_length)
    edges = np.unique(np.linspace(0, top, _BINS + 1).astype(np.int64))
    found: dict[str, Any] = {"edges": edges.tolist()}
    for side, part in (("agent", values[:num_agent]), ("general", values[num_agent:])):
        found[side] = {
            "rows": np.histogram(part, edges)[0].tolist(),
            "mean": round(float(part.mean()), 1) if len(part) else None,
            "median": int(np.median(part)) if len(part) else None,
            "longest": int(part.max()) if len(part) else None,
        }
    return found


def _eta_over_run(planned: MixSchedule, plan: Plan, counts: Counts) -> dict[str, Any]:
    """Return the shares of agent data in windows of whole blocks."""
    order, rows = planned.order, planned.row_sequence()
    blocks = -(-len(rows) // order.block)
    window = -(-blocks // _WINDOWS) * order.block
    starts = np.arange(0, len(rows), window)
    of_agent = rows < order.num_agent
    found: dict[str, Any] = {"window": window, "starts": starts.tolist()}
    for unit, values in counts.items():
        drawn = values[rows]
        total = np.add.reduceat(drawn, starts)
        part = np.add.reduceat(np.where(of_agent, drawn, 0), starts)
        found[unit] = [round(float(x), 6) for x in part / np.maximum(total, 1)]
    found["wanted"] = [[stage.start, stage.share] for stage in as_stages(plan.eta)]
    found["wanted_unit"] = f"{plan.unit}s"
    return found


def _exposures(times: Index) -> dict[str, Any]:
    """Count rows by number of occurrences, in ranges if there are many values."""
    if not len(times):
        return {"ranges": [], "rows": []}
    low, high = int(times.min()), int(times.max())
    width = -(-(high - low + 1) // _MAX_BARS)
    starts = range(low, high + 1, width)
    rows = np.bincount((times - low) // width, minlength=len(starts))
    ranges = [[start, min(high, start + width - 1)] for start in starts]
    return {"ranges": ranges, "rows": rows.tolist(), "mean": round(float(times.mean()), 2)}
