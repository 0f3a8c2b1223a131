"""Table of runs: arms with their cost, every figure by arm, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agenttuning_plugin.reports.runs.arms import Arm, find_arm, group_runs
from agenttuning_plugin.reports.runs.cost import UNITS, mean_of
from agenttuning_plugin.reports.runs.figures import Cell, Figure, figures_of
from agenttuning_plugin.reports.runs.read import BASE, read_runs

METHOD = (
    "In brackets: 95 % intervals over seeds and items (two-way clustered; with one seed over "
    "items only). Differences are paired by seed and item; p (Holm): adjusted for the number of "
    "arms compared in the figure. Differences of shares are in percentage points."
)
"""How to read the figures, in one paragraph."""


@dataclass(frozen=True, slots=True)
class RunTable:
    """Runs grouped into arms, with their figures.

    Attributes:
        keys: Keys that tell the arms apart.
        arms: In order.
        against: Label of the reference.
        figures: Of all evaluators.
        without: Runs without results, and why.
        remarks: On the grouping, one line each.
    """

    keys: list[str]
    arms: list[Arm]
    against: str
    figures: list[Figure]
    without: dict[str, str]
    remarks: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return JSON-ready values; figures that JSON lacks are null."""
        return {
            "keys": self.keys,
            "against": self.against,
            "arms": [
                {
                    "arm": arm.label,
                    "values": dict(arm.values),
                    "runs": [str(run.folder) for run in arm.runs],
                    "seeds": [run.seed for run in arm.runs],
                    **_finite(summarise_cost(arm)),
                }
                for arm in self.arms
            ],
            "figures": [
                {
                    "evaluator": figure.evaluator,
                    "figure": figure.score,
                    "suite": figure.suite,
                    "arms": [_cell_json(cell) for cell in figure.cells],
                    "remarks": figure.remarks,
                }
                for figure in self.figures
            ],
            "without_results": self.without,
            "remarks": self.remarks,
        }


def make_table(
    places: Sequence[Path],
    *,
    by: Sequence[str] = (),
    against: str | Path | None = None,
    figures: Sequence[str] = (),
    every_figure: bool = False,
) -> RunTable:
    """Read runs and compare them.

    Args:
        places: See `read_runs`.
        by: See `group_runs`.
        against: Label of the reference arm, or the folder of one of its runs; by default the
            base if it was measured before training, otherwise the first arm.
        figures: See `figures_of`.
        every_figure: All scores, not only each evaluator's main one.

    Raises:
        AgentTuningError: A folder, key, arm or figure is wrong; see the functions above.
    """
    found = read_runs(places)
    keys, arms, remarks = group_runs(found, by)
    has_base = any(run.start for run in found.runs)
    reference: Arm | None = None
    if against not in (None, BASE) or not has_base:
        reference = arms[0] if against is None else find_arm(arms, against)
    shown = figures_of(arms, reference, figures, every=every_figure)
    label = BASE if reference is None else reference.label
    return RunTable(keys, arms, label, shown, found.without, remarks)


def summarise_cost(arm: Arm) -> dict[str, float]:
    """Return the means over an arm's runs of realised eta, tokens, steps and seconds."""
    costs = [run.cost for run in arm.runs]
    return {
        **{f"eta_{unit}": mean_of([cost.eta[unit] for cost in costs]) for unit in UNITS},
        **{
            name: mean_of([getattr(cost, name) for cost in costs])
            for name in ("trained_tokens", "tokens", "steps", "seconds", "evaluation_seconds")
        },
    }


def _cell_json(cell: Cell) -> dict[str, Any]:
    return {
        "arm": cell.arm,
        "mean": None if cell.mean is None else _finite(asdict(cell.mean)),
        "change": None if cell.change is None else _finite(asdict(cell.change)),
        "p_holm": cell.p_holm,
    }


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    def known(value: Any) -> bool:
        return not isinstance(value, float) or math.isfinite(value)

    return {key: value if known(value) else None for key, value in values.items()}
