"""Section of a model card on scores: base and result with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from agenttuning_plugin.reports.compare import compare_run, unmeasured
from evaluators.evaluator import Metric

Row = Mapping[str, Any]


def score_lines(evaluations: Sequence[Row]) -> list[str]:
    """Return a table of each evaluator's main figure before and after training.

    Args:
        evaluations: From `read_evaluations`, in chronological order.
    """
    finals = _last(evaluations)
    if not finals:
        return ["Not measured during training."]
    changes = {(each.evaluator, each.figure): each for each in compare_run(evaluations)}
    lines = ["| Evaluator | Figure | Base | Result | Items | Change | p |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, row in finals.items():
        figure, metric = _primary(row)
        first = next(each for each in evaluations if each["evaluator"] == name)
        before = first["metrics"].get(figure) if first["step"] == 0 else None
        change, p = "", ""
        if (found := changes.get((name, figure))) is not None and before is not None:
            difference = found.change
            change = f"{difference.value:+.3f}{_interval(difference.low, difference.high)}"
            p = "< 0.001" if difference.p_value < 0.001 else f"{difference.p_value:.3f}"
        base = _show(before) if before is not None else "not measured"
        step = f"{_show(metric)} (step {row['step']})"
        lines.append(f"| {name} | {figure} | {base} | {step} | {metric.n} | {change} | {p} |")
    lines += ["", "In brackets: 95 % intervals. Change and p: paired, item by item."]
    abouts = {
        name: ", ".join(f"{key} {value}" for key, value in (row.get("about") or {}).items())
        for name, row in finals.items()
    }
    lines += [f"- {name}: {about}" for name, about in abouts.items() if about]
    return lines + [f"- not measured: {line}" for line in unmeasured(evaluations)]


def score_results(evaluations: Sequence[Row]) -> list[Any]:
    """Return the final figures as `huggingface_hub.EvalResult`, for a card's front matter."""
    from huggingface_hub import EvalResult

    found = []
    for name, row in _last(evaluations).items():
        figure, metric = _primary(row)
        if math.isfinite(metric.value):
            result = EvalResult(
                task_type="text-generation",
                dataset_type=f"agenttuning/{name}",
                dataset_name=name,
                metric_type=figure,
                metric_value=round(metric.value, 6),
                metric_name=f"{figure} ({metric.n} items)",
            )
            found.append(result)
    return found


def _last(evaluations: Sequence[Row]) -> dict[str, Row]:
    """Return each evaluator's last evaluation after the start, if it has figures."""
    return {row["evaluator"]: row for row in evaluations if row["metrics"] and row["step"] > 0}


def _primary(row: Row) -> tuple[str, Metric]:
    figure = str(row.get("primary") or next(iter(row["metrics"])))
    figure = figure if figure in row["metrics"] else next(iter(row["metrics"]))
    return figure, row["metrics"][figure]


def _show(metric: Metric) -> str:
    return f"{metric.value:.3f}{_interval(metric.low, metric.high)}"


def _interval(low: float, high: float) -> str:
    return f" [{low:.3f}, {high:.3f}]" if math.isfinite(low) and math.isfinite(high) else ""
