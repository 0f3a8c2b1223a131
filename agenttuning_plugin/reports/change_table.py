"""Table of paired changes: printed by `compare`, at the end of a run, and by the demo."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from agenttuning_plugin.reports.compare import Compared

_HEADING = 8
"""Characters of a folder's name per line of the table's header."""
_CAPTION = "(n); change [95 % interval] and p: paired, item by item; "


def table(
    compared: Sequence[Compared],
    first: str = "base",
    second: str = "tuned",
    *,
    title: str | None = None,
    flips: bool = False,
) -> Table:
    """Format paired changes as a table of 80 columns.

    Args:
        compared: The figures, those of a suite next to each other.
        first: Heading of the first evaluation.
        second: Heading of the second one.
        title: Title above the table.
        flips: Add the numbers of improved and regressed items.
    """
    caption = _CAPTION + ("+ better, - worse" if flips else "format: every turn parsed")
    made = Table(title=title, caption=escape(caption), box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("", overflow="fold")  # Names are folded, never figures.
    for column in (first, second, "change", "p", *(["+/-"] if flips else [])):
        heading = "\n".join(textwrap.wrap(column, _HEADING)) or column
        made.add_column(escape(heading), justify="right", no_wrap=True)
    suite = ""
    for row in compared:
        if row.suite != suite:
            made.add_row(f"[bold]{row.suite}[/bold]")
            suite = row.suite
        change = row.change
        made.add_row(
            f"  {escape(row.label)} ({change.n})",
            _show(row, change.before),
            _show(row, change.after),
            escape(_show_change(row)),
            "<.001" if change.p_value < 0.001 else f"{change.p_value:.3f}",
            *([f"{len(change.better)}/{len(change.worse)}"] if flips else []),
        )
    return made


def _show(row: Compared, value: float) -> str:
    return f"{value:.1%}" if row.percent else f"{value:.3f}"


def _show_change(row: Compared) -> str:
    """Format a change in percentage points, else in percent of the first value."""
    change = row.change
    unit = 1.0 if row.percent else abs(change.before)
    if row.figure == "kl" or not unit:  # A divergence from itself is 0 but for rounding.
        return f"{change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"
    value, low, high = (100 * part / unit for part in (change.value, change.low, change.high))
    sign = " pts" if row.percent else " %"
    return f"{value:+.1f}{sign} [{low:+.1f}, {high:+.1f}]"
