"""`agenttuning errors`: rates of failure modes, by task and step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from agenttuning_plugin.reports.collected import collected_records
from dataset_builders.environments.tool_dialogue import MALFORMED_CALL
from dataset_builders.environments.tool_schemas import INVALID_ARGUMENTS, UNKNOWN_TOOL
from dataset_builders.errors import SourceNotFoundError
from evaluators.evaluator import RECORDS_FILE
from evaluators.results.evaluations import read_evaluations
from evaluators.stats.intervals import Metric
from evaluators.tasks.failure_modes import (
    CALL_ERROR,
    CALL_REPETITION,
    INVALID_ACTION,
    LONG_REPETITION,
    MODES,
    REFUSAL,
    SHORT_REPETITION,
    TOOL_MODES,
    failure_rates,
)

_HEADINGS = {
    INVALID_ACTION: "invalid\naction",
    SHORT_REPETITION: "short\nrepeat",
    LONG_REPETITION: "long\nrepeat",
    REFUSAL: "refusal",
    CALL_ERROR: "call\nerror",
    CALL_REPETITION: "call\nrepeat",
    MALFORMED_CALL: "unread\ncall",
    UNKNOWN_TOOL: "unknown\ntool",
    INVALID_ARGUMENTS: "wrong\nargs",
}
"""Column titles short enough for 80 columns."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Failure rates of one task at one step.

    Attributes:
        evaluator: The task.
        step: Optimizer step; 0 outside of training.
        rates: Share of episodes by mode, for modes that apply.
    """

    evaluator: str
    step: int
    rates: dict[str, Metric]

    def as_json(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        rates = {mode: asdict(metric) for mode, metric in self.rates.items()}
        return {"evaluator": self.evaluator, "step": self.step, "failures": rates}


def read_rates(folder: Path) -> list[Rates]:
    """Compute the failure rates of a folder's evaluations with episodes, or of its collections.

    Raises:
        SourceNotFoundError: There is none.
        DataError: A line has another format.
    """
    found = []
    for row in _evaluations(folder):
        if rates := failure_rates(row["records"]):
            named = {name.removeprefix("failure_"): metric for name, metric in rates.items()}
            found.append(Rates(row["evaluator"], row["step"], named))
    if not found:
        raise SourceNotFoundError(f"{folder}: found no evaluation that played episodes")
    return found


def _evaluations(folder: Path) -> list[dict[str, Any]]:
    """Return a folder's evaluations, or its collections."""
    collected = collected_records(folder)
    if collected and not (folder / RECORDS_FILE).is_file():
        return [
            {"evaluator": name, "step": 0, "records": records}
            for name, records in collected.items()
        ]
    return read_evaluations(folder)


def table(rows: Sequence[Rates]) -> Table:
    """Format a table of 80 columns: percent of episodes."""
    made = Table(
        title="Episodes that show a failure mode, in percent",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    made.add_column("task", overflow="fold")  # Never truncated: names identify the rows.
    tools = any(TOOL_MODES[0] in row.rates for row in rows)
    modes = (*MODES, *(TOOL_MODES if tools else ()))
    for column in ("step", "n", *(_HEADINGS[mode] for mode in modes)):
        made.add_column(column, justify="right")
    for row in rows:
        n = next(iter(row.rates.values())).n
        shares = (row.rates.get(mode) for mode in modes)
        cells = ("" if share is None else f"{100 * share.value:.0f}" for share in shares)
        made.add_row(row.evaluator, str(row.step), str(n), *cells)
    return made
