"""Formats of the table of runs: terminal, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from agenttuning_plugin.reports.runs.arms import Arm
from agenttuning_plugin.reports.runs.cost import UNITS
from agenttuning_plugin.reports.runs.figures import Figure
from agenttuning_plugin.reports.runs.table import METHOD, RunTable, summarise_cost
from evaluators.stats.replicated import Replicated

_COST = ("steps", "trained tokens", "train s", "eval s")
_HEADING = 6
"""Characters of a heading per line on the terminal."""
_CSV_MEAN = ("value", "stderr", "low", "high", "runs", "items", "left_out", "method")
_CSV_CHANGE = ("before", "value", "stderr", "low", "high", "p_value", "runs", "items")


@dataclass(frozen=True, slots=True)
class Block:
    """One table of text.

    Attributes:
        title: Its title.
        header: Column headings; the first column is text, the others figures.
        rows: Cells.
        remarks: Lines below.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    remarks: list[str]


def blocks_of(table: RunTable) -> list[Block]:
    """Return the table as text: the arms, then each figure."""
    return [_arms_block(table), *(_figure_block(table, figure) for figure in table.figures)]


def missing_lines(table: RunTable) -> list[str]:
    """Return the runs without results, by reason, and remarks on the grouping, one line each."""
    by_reason: dict[str, list[str]] = {}
    for name, why in table.without.items():
        by_reason.setdefault(why, []).append(name)
    lines = [
        f"{names[0]}: {why}" if len(names) == 1 else f"{len(names)} {why}: {', '.join(names)}"
        for why, names in by_reason.items()
    ]
    return lines + table.remarks


def as_terminal(table: RunTable) -> RenderableType:
    """Format the table for the terminal."""
    parts: list[RenderableType] = []
    for block in blocks_of(table):
        made = Table(
            title=escape(block.title),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        made.add_column(block.header[0], overflow="fold")  # Names are folded, never figures.
        for heading in block.header[1:]:
            lines = textwrap.wrap(heading, _HEADING, break_long_words=False)
            made.add_column(escape("\n".join(lines)), justify="right", no_wrap=True)
        for row in block.rows:
            made.add_row(*map(escape, row))
        parts += [made, *(Text(line) for line in block.remarks)]
    return Group(*parts, Text(METHOD))


def as_markdown(table: RunTable) -> str:
    """Format the table as Markdown."""
    lines: list[str] = []
    for block in blocks_of(table):
        lines += [f"### {block.title}", "", _md_row(block.header)]
        lines += [_md_row(["---", *["---:"] * (len(block.header) - 1)])]
        lines += [*map(_md_row, block.rows), ""]
        lines += [f"- {line}" for line in block.remarks] + [""] * bool(block.remarks)
    missing = missing_lines(table)
    lines += [METHOD, "", *(f"- {line}" for line in missing)]
    return "\n".join(lines).rstrip() + "\n"


def as_csv(table: RunTable) -> str:
    """Format the table as CSV: one line per figure and arm, empty where nothing is known."""
    out = io.StringIO()
    costs = {arm.label: summarise_cost(arm) for arm in table.arms}
    values = {arm.label: arm.values for arm in table.arms}
    names = list(next(iter(costs.values())))
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["evaluator", "figure", "arm", *table.keys, *_CSV_MEAN, "against",
         *(f"change_{name}" for name in _CSV_CHANGE), "p_holm", *names, "remark"]
    )  # fmt: skip
    for figure in table.figures:
        for cell in figure.cells:
            cost = costs.get(cell.arm, {})
            writer.writerow(
                [figure.evaluator, figure.score, cell.arm]
                + [values.get(cell.arm, {}).get(key, "") for key in table.keys]
                + [_raw(cell.mean, name) for name in _CSV_MEAN]
                + [table.against if cell.change else ""]
                + [_raw(cell.change, name) for name in _CSV_CHANGE]
                + ["" if cell.p_holm is None else _plain(cell.p_holm)]
                + [_plain(cost.get(name, math.nan)) for name in names]
                + ["" if cell.mean else "not measured"]
            )
    between = len(table.keys) + len(_CSV_MEAN) + len(_CSV_CHANGE) + len(names) + 2
    for name, why in table.without.items():
        writer.writerow(["", "", name, *[""] * between, f"no results: {why}"])
    return out.getvalue()


def _arms_block(table: RunTable) -> Block:
    etas = [f"eta {unit.replace('_', ' ')}" for unit in UNITS]
    rows = [list(_arm_row(arm)) for arm in table.arms]
    lines = [f"Realised eta: share of agent data. Compared with: {table.against}."]
    return Block("Arms", ["arm", "seeds", *etas, *_COST], rows, lines)


def _arm_row(arm: Arm) -> Iterator[str]:
    cost = summarise_cost(arm)
    yield arm.label
    yield ",".join("-" if run.seed is None else str(run.seed) for run in arm.runs)
    yield from (_fixed(cost[f"eta_{unit}"], 3) for unit in UNITS)
    for name in ("steps", "trained_tokens", "seconds", "evaluation_seconds"):
        yield _fixed(cost[name], 0)


def _figure_block(table: RunTable, figure: Figure) -> Block:
    header = ["arm", "runs x items", "mean", f"against {table.against}", "p", "p (Holm)"]
    rows = []
    for cell in figure.cells:
        mean, change = cell.mean, cell.change
        rows.append(
            [
                cell.arm,
                f"{mean.runs}x{mean.items}" if mean else "",
                shown(mean, percent=figure.percent) if mean else "not measured",
                shown(change, percent=figure.percent, signed=True) if change else "",
                shown_p(change.p_value) if change else "",
                "" if cell.p_holm is None else shown_p(cell.p_holm),
            ]
        )
    unit = ", %" if figure.percent else ""
    title = f"{figure.title}{unit}"
    title += f" ({figure.suite})" if figure.suite else ""
    return Block(title, header, rows, figure.remarks)


def shown(found: Replicated, *, percent: bool, signed: bool = False) -> str:
    """Format an estimate with its interval, shares in percent."""
    sign = "+" if signed else ""
    scale, digits = (100.0, 1) if percent else (1.0, 3)
    parts = [f"{scale * part:{sign}.{digits}f}" for part in (found.value, found.low, found.high)]
    return parts[0] if not math.isfinite(found.low) else f"{parts[0]} [{parts[1]}, {parts[2]}]"


def shown_p(value: float) -> str:
    """Format a p value."""
    return "" if math.isnan(value) else "<.001" if value < 0.001 else f"{value:.3f}"


def _fixed(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:,.{digits}f}"


def _raw(found: Replicated | None, name: str) -> str:
    value = getattr(found, name) if found else ""
    return _plain(value) if isinstance(value, float) else str(value)


def _plain(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def _md_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
