"""Result table of `agenttuning evaluate`, and its JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agenttuning_plugin.evaluation.suite import Panel, Task
from evaluators.evaluator import EvalResult
from evaluators.tasks.overall import overalls


@dataclass(frozen=True, slots=True)
class ShownPanel:
    """Results to print.

    Attributes:
        panel: The panel.
        limit: Items per task, or None for all.
        overall: The paper's Overall by suite, for complete suites.
    """

    panel: Panel
    limit: int | None
    overall: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return JSON-ready values; figures in the evaluators' own units."""
        return {
            "limit": self.limit,
            "overall": self.overall,
            "tasks": [_json(task, self.panel.results[task.name]) for task in self.panel.tasks],
        }

    def print(self, console: Console, title: str) -> None:
        """Print a row per task, then why some have no score, one line each."""
        table = Table(title=escape(title), box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("", "task", "score", "95 % interval", "n", "errors"):
            side = "left" if column in ("", "task") else "right"
            table.add_column(column, justify=side, no_wrap=True)  # type: ignore[arg-type]
        shown: str = ""
        for task in self.panel.tasks:
            heading = "" if task.suite == shown else task.suite
            shown = task.suite
            table.add_row(heading, escape(task.title), *_cells(task, self.panel.results[task.name]))
        console.print(table)
        for suite, value in self.overall.items():
            limited = f" (of the first {self.limit} items of each task)" if self.limit else ""
            console.print(f"{suite} Overall {value:.2f}{limited}")
        for task in self.panel.tasks:
            result = self.panel.results[task.name]
            if result.error:
                reason = result.error.removeprefix(f"{task.name}: ")
                console.print(escape(f"{task.title}: {reason}"), soft_wrap=True)
            if main := result.about.get("main figure") and _others(task, result):
                note = f"{task.title}: the score is {result.about['main figure']} ({main})"
                console.print(escape(note), soft_wrap=True)
            if result.warning:
                console.print(escape(f"{task.title}: warning: {result.warning}"), soft_wrap=True)


def show_panel(panel: Panel, limit: int | None) -> ShownPanel:
    """Prepare results for printing."""
    return ShownPanel(panel, limit, overalls(panel.results))


def _cells(task: Task, result: EvalResult) -> tuple[str, str, str, str]:
    metric = result.metrics.get(result.primary)
    if metric is None:
        return "not measured", "", "", str(len(result.records) or "")
    digits = 3 if task.scale == 1.0 else 1
    value, low, high = (
        f"{task.scale * each:.{digits}f}" for each in (metric.value, metric.low, metric.high)
    )
    spread = f"{low} to {high}" if math.isfinite(metric.stderr) else ""
    return value, spread, str(metric.n), str(result.num_errors or "")


def _others(task: Task, result: EvalResult) -> str:
    """Return figures other than the main one, for tasks that state their main figure."""
    if result.primary not in result.metrics:
        return ""
    return ", ".join(
        f"{name} {task.scale * metric.value:.1f}"
        for name, metric in result.metrics.items()
        if name != result.primary
    )


def _json(task: Task, result: EvalResult) -> dict[str, Any]:
    return {
        "name": task.name,
        "suite": task.suite,
        "primary": result.primary,
        "metrics": {
            name: {key: _finite(value) for key, value in asdict(metric).items()}
            for name, metric in result.metrics.items()
        },
        "num_errors": result.num_errors,
        "seconds": round(result.seconds, 3),
        "about": dict(result.about),
        "reason": result.error,
        "warning": result.warning,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
