"""Read `evaluations.jsonl` and compare a run's base model with its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from evaluators.stats.intervals import Metric
from evaluators.stats.paired import Change, paired_change


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure before and after training.

    Attributes:
        suite: Its suite, such as "held-in".
        label: Its name.
        base: Value at the first evaluation.
        tuned: Value at the last one.
        change: Change over the items that both measured.
        percent: Whether the figure is shown as a percentage.
    """

    suite: str
    label: str
    base: Metric
    tuned: Metric
    change: Change
    percent: bool


_WORDS = {"success": "success", "valid_format": "format", "action_match": "actions"}
_BESIDE = ("valid_format",)
"""Figures shown in addition to an evaluator's main figure."""


def compare(evaluations: list[dict[str, Any]]) -> list[Comparison]:
    """Compare each evaluator's baseline, measured at step 0, with its last evaluation."""
    found: list[Comparison] = []
    for name in dict.fromkeys(row["evaluator"] for row in evaluations):
        rows = [row for row in evaluations if row["evaluator"] == name and row["metrics"]]
        if not rows or rows[0]["step"] != 0:
            continue
        base, tuned = rows[0], rows[-1]
        primary = tuned.get("primary") or next(iter(tuned["metrics"]))
        for key in (primary, *_BESIDE):
            if key not in base["metrics"] or key not in tuned["metrics"]:
                continue
            macro = bool(tuned.get("macro"))
            found.append(
                Comparison(
                    suite=str(tuned.get("suite", "")),
                    label=f"{name} {_WORDS.get(key, key)}",
                    base=base["metrics"][key],
                    tuned=tuned["metrics"][key],
                    change=paired_change(base["records"], tuned["records"], key, macro=macro),
                    percent=_is_share(key, (base, tuned)),
                )
            )
    return found


def unmeasured(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what could not be measured at all, and why, one line each."""
    measured = {row["evaluator"] for row in evaluations if row["metrics"]}
    reasons = {
        row["evaluator"]: row.get("error", "")
        for row in evaluations
        if row["evaluator"] not in measured
    }
    return [f"{name}: {reason.removeprefix(f'{name}: ')}" for name, reason in reasons.items()]


def _is_share(key: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    if key == "loss":
        return False
    values = [record["scores"].get(key, 0.0) for row in rows for record in row["records"]]
    return all(0.0 <= value <= 1.0 for value in values)


def table(comparisons: list[Comparison], title: str) -> Table:
    """Format the comparison as a table of 80 columns; brackets are 95 % intervals."""
    caption = "(n); change [95 % interval] and p: paired, item by item; format: every turn parsed"
    made = Table(title=title, caption=escape(caption), box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("", "base", "tuned", "change", "p"):
        made.add_column(column, justify="left" if not column else "right", no_wrap=True)
    shown = ""
    for row in comparisons:
        if row.suite != shown:
            made.add_row(f"[bold]{row.suite}[/bold]")
            shown = row.suite
        made.add_row(
            f"  {row.label} ({row.change.n})",
            _show(row.base, row.percent),
            _show(row.tuned, row.percent),
            escape(_show_change(row)),
            "<.001" if row.change.p_value < 0.001 else f"{row.change.p_value:.3f}",
        )
    return made


def _show(metric: Metric, percent: bool) -> str:
    return f"{metric.value:.1%}" if percent else f"{metric.value:.3f}"


def _show_change(row: Comparison) -> str:
    """Format a change in percentage points, else in percent of the base."""
    change = row.change
    unit = 1.0 if row.percent else abs(change.before)
    if not unit:
        return f"{change.value:+.3f}"
    value, low, high = (100 * each / unit for each in (change.value, change.low, change.high))
    sign = " pts" if row.percent else " %"
    return f"{value:+.1f}{sign} [{low:+.1f}, {high:+.1f}]"
