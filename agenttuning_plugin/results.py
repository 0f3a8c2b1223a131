"""Reading `evaluations.jsonl` and setting a run's base beside its result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from dataset_builders.errors import DataError, SourceNotFoundError
from evaluators.base import RECORDS_FILE
from evaluators.statistics import Z95, Metric, ratio


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure before and after.

    Attributes:
        label: What it is.
        base: At the first evaluation.
        tuned: At the last one.
        change: Difference over the same items, with its interval; none where the items
            carry no figure of their own.
        percent: Whether the figure reads as a percentage.
    """

    label: str
    base: Metric
    tuned: Metric
    change: Metric | None
    percent: bool


_SHOWN = {
    "success": ("success", True),
    "valid_format": ("format", True),
    "loss": ("loss", False),
}


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """Evaluations of a run, in the order they were made.

    Raises:
        SourceNotFoundError: The folder holds none.
        DataError: A line is not what this package writes.
    """
    path = folder / RECORDS_FILE
    if not path.is_file():
        raise SourceNotFoundError(f"{path}: no such file; has a run with evaluators ended here?")
    rows: list[dict[str, Any]] = []
    # Not splitlines: a model's text may hold separators that JSON does not escape.
    lines = path.read_text("utf-8").split("\n")
    for number, line in enumerate(lines if lines[-1] else lines[:-1], 1):
        try:
            row = json.loads(line)
            row["metrics"] = {key: Metric(**value) for key, value in row["metrics"].items()}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}:{number}: not an evaluation: {error}") from error
        rows.append(row)
    return rows


def compare(evaluations: list[dict[str, Any]]) -> list[Comparison]:
    """Set each evaluator's base, measured at step 0, beside its last evaluation."""
    found: list[Comparison] = []
    for name in dict.fromkeys(row["evaluator"] for row in evaluations):
        rows = [row for row in evaluations if row["evaluator"] == name]
        base, tuned = rows[0], rows[-1]
        if base["step"] != 0:
            continue
        for key, (label, percent) in _SHOWN.items():
            if key in base["metrics"] and key in tuned["metrics"]:
                found.append(
                    Comparison(
                        label=f"{name} {label}",
                        base=base["metrics"][key],
                        tuned=tuned["metrics"][key],
                        change=_paired(base["records"], tuned["records"], key),
                        percent=percent,
                    )
                )
    return found


def _paired(
    base: list[Mapping[str, Any]], tuned: list[Mapping[str, Any]], key: str
) -> Metric | None:
    """Difference over the items that both evaluations measured."""
    before = {row["item"]: row for row in base if key in row["scores"]}
    pairs = [
        (before[row["item"]], row)
        for row in tuned
        if row["item"] in before and key in row["scores"]
    ]
    if not pairs:
        return None
    weights = [float(after.get("weight", 1.0)) for _, after in pairs]
    differences = [after["scores"][key] - first["scores"][key] for first, after in pairs]
    return ratio([d * w for d, w in zip(differences, weights, strict=True)], weights)


def table(comparisons: list[Comparison], title: str) -> Table:
    """The comparison as a table of 80 columns; brackets hold 95 % intervals."""
    caption = "(tasks or conversations) [95 % interval]; format: every turn parsed"
    made = Table(title=title, caption=escape(caption), box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("", "base", "tuned", "change"):
        made.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for row in comparisons:
        made.add_row(
            f"{row.label} ({row.tuned.n})",
            _show(row.base, row.percent),
            _show(row.tuned, row.percent),
            _show_change(row),
        )
    return made


def _show(metric: Metric, percent: bool) -> str:
    if percent:
        return escape(f"{metric.value:.1%} [{metric.low:.0%}, {metric.high:.0%}]")
    return escape(f"{metric.value:.3f} [{metric.low:.2f}, {metric.high:.2f}]")


def _show_change(row: Comparison) -> str:
    difference = row.tuned.value - row.base.value
    if row.percent:
        return f"{100 * difference:+.1f} pts"
    if not row.base.value:
        return f"{difference:+.3f}"
    spread = f" ±{Z95 * row.change.stderr / row.base.value:.1%}" if row.change else ""
    return f"{difference / row.base.value:+.1%}{spread}"
