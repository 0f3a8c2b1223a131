"""Tables and figures of the study in docs/, made from the committed scores of every item.

    python -m benchmarks.study_tables            # writes them into the pages
    python -m benchmarks.study_tables --print    # prints all tables

A page has them between marks: `<!-- study: NAME -->` and `<!-- end -->`, where NAME is a table, or
a table and an arm, such as `Q4: eta-0_general-replay`, for the arm's differences as a sentence.

Comparisons are those of the study's design. They are paired by seed and item over the seeds that
both arms have; intervals and p values are those of `evaluators.stats.replicated`, and Holm's
adjustment is over the rows of one table.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from agenttuning_plugin.reports.runs.text import shown, shown_p
from benchmarks.study_comparisons import ARMS, TABLES, Comparison, Metric, Table
from benchmarks.study_items import RESULTS
from evaluators.stats.replicated import Replicated, holm, replicated_change, replicated_mean

ROOT = Path(__file__).resolve().parents[1]
MARK = re.compile(r"(<!-- study: ([^>]+) -->)(.*?)(<!-- end -->)", re.DOTALL)

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison with its result; none where an arm has no run yet."""

    what: Comparison
    change: Replicated | None
    p_holm: float = math.nan


class Scores:
    """Scores of a result file of `study_items`.

    Args:
        result: Its content.
    """

    def __init__(self, result: Mapping[str, Any]) -> None:
        self._weights = result["weights"]
        self._base = result["base"]
        self._runs: dict[str, dict[int, Mapping[str, Any]]] = {}
        for run in result["runs"]:
            self._runs.setdefault(run["arm"], {})[run["seed"]] = run

    def seeds(self, arm: str) -> list[int]:
        """Return the seeds of an arm, none of one without results."""
        return sorted(self._runs.get(arm, {}))

    def share(self, arm: str) -> float:
        """Return the share of agent data in the trained tokens, the mean over an arm's seeds."""
        return fmean(run["cost"]["eta"]["trained_tokens"] for run in self._runs[arm].values())

    def records(self, arm: str, seed: int, metric: Metric) -> list[Record]:
        """Return a run's scores as records of an evaluator."""
        scores = self._base if arm == "base" else self._runs[arm][seed]["scores"]
        weights = self._weights.get(metric.evaluator, {})
        return [
            {"item": item, "scores": {metric.figure: value}}
            | ({"weight": weights[item]} if item in weights else {})
            for item, value in scores[metric.evaluator][metric.figure].items()
            if metric.covers(item)
        ]

    def mean(self, arm: str, metric: Metric) -> Replicated:
        """Return an arm's figure over its seeds and the items."""
        seeds = self.seeds(arm) or [0]
        return replicated_mean([self.records(arm, s, metric) for s in seeds], metric.figure)

    def change(self, compared: Comparison) -> Replicated | None:
        """Return the paired difference of two arms over the seeds that both have."""
        before, after, metric = compared.before, compared.after, compared.metric
        seeds = self.seeds(after)
        if before != "base":
            seeds = [seed for seed in seeds if seed in self.seeds(before)]
        if not seeds:
            return None
        old, new = ([self.records(arm, s, metric) for s in seeds] for arm in (before, after))
        return replicated_change(old, new, metric.figure)


@cache
def scores_of(name: str) -> Scores:
    """Return the scores of a result file."""
    return Scores(json.loads((RESULTS / name).read_text("utf-8")))


def compare(table: Table) -> list[Compared]:
    """Return the table's comparisons; p values adjusted for their number."""
    changes = [scores_of(table.source).change(each) for each in table.comparisons]
    adjusted = holm([math.nan if c is None else c.p_value for c in changes])
    rows = zip(table.comparisons, changes, adjusted, strict=True)
    return [Compared(what, change, p) for what, change, p in rows]


def difference(metric: Metric, change: Replicated) -> str:
    """Return a difference with its interval; of shares in percentage points."""
    unit = " pts" if metric.percent else ""
    return shown(change, percent=metric.percent, signed=True) + unit


def comparison_table(rows: Sequence[Compared]) -> list[str]:
    """Return differences as a table in Markdown."""
    lines = [
        "| Compared | Figure | Seeds | Difference | p | p (Holm) |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        metric, change = row.what.metric, row.change
        if change is None:
            lines.append(f"| {row.what.label} | {metric.name} | 0 | not run | | |")
            continue
        lines.append(
            f"| {row.what.label} | {metric.name} | {change.runs} | {difference(metric, change)} "
            f"| {shown_p(change.p_value)} | {shown_p(row.p_holm)} |"
        )
    return lines


def arm_table(source: str, arms: Sequence[tuple[str, str]], metrics: Sequence[Metric]) -> list[str]:
    """Return the figures of arms as Markdown, a row each."""
    scores = scores_of(source)
    heads = ["Arm", "Seeds", "Share of trained tokens", *(metric.title for metric in metrics)]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for arm, label in arms:
        seeds = scores.seeds(arm)
        if not seeds and arm != "base":
            lines.append(f"| {label} | 0 | not run |{' |' * len(metrics)}")
            continue
        share = f"{scores.share(arm):.2f}" if seeds else ""
        cells = [shown(scores.mean(arm, each), percent=each.percent) for each in metrics]
        lines.append(f"| {label} | {len(seeds) or ''} | {share} | {' | '.join(cells)} |")
    return lines


def sentences(rows: Sequence[Compared]) -> dict[str, str]:
    """Return the differences of each arm, by its name, as part of a sentence."""
    found: dict[str, list[str]] = {}
    seeds: dict[str, int] = {}
    for row in rows:
        if (change := row.change) is not None:
            what = row.what
            text = f"{what.metric.name} {difference(what.metric, change)}, p {shown_p(row.p_holm)}"
            found.setdefault(what.after, []).append(text)
            seeds[what.after] = change.runs
    return {
        arm: f"{'; '.join(texts)} ({seeds[arm]} {'seed' if seeds[arm] == 1 else 'seeds'})"
        for arm, texts in found.items()
    }


@cache
def parts() -> dict[str, str]:
    """Return the text of every table and of every arm's differences, by its name in a mark."""
    found = {
        name: "\n\n" + "\n".join(arm_table(source, arms, metrics)) + "\n\n"
        for name, (source, arms, metrics) in ARMS.items()
        if (RESULTS / source).exists()
    }
    for table in TABLES:
        if (RESULTS / table.source).exists():
            rows = compare(table)
            found[table.name] = "\n\n" + "\n".join(comparison_table(rows)) + "\n\n"
            found |= {f"{table.name}: {arm}": text for arm, text in sentences(rows).items()}
    return found


def names() -> set[str]:
    """Return all names that a mark may have, whether or not there is a result yet."""
    arms = {f"{table.name}: {row.after}" for table in TABLES for row in table.comparisons}
    return {*ARMS, *(table.name for table in TABLES), *arms}


def filled(page: str) -> str:
    """Return a page's text with every table and figure of the study between its marks.

    Raises:
        KeyError: A mark's name is unknown.
    """
    known = names()

    def text(match: re.Match[str]) -> str:
        start, name, _, end = match.groups()
        if name not in known:
            raise KeyError(name)
        return f"{start}{parts().get(name, 'not run')}{end}"

    return MARK.sub(text, page)


def pages() -> list[Path]:
    """Return the pages with marks."""
    found = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
    return [path for path in found if MARK.search(path.read_text("utf-8"))]


def main() -> None:
    """Write the tables and figures into the pages, or print the tables."""
    if "--print" in sys.argv:
        for name, text in parts().items():
            print(f"{name}{text}")
        return
    for path in pages():
        path.write_text(filled(path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
