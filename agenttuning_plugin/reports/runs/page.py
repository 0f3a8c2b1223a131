"""Page of compared runs: one HTML file without scripts, works offline, light and dark."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from agenttuning_plugin.reports.mix.page import show
from agenttuning_plugin.reports.runs.plot import plot, style
from agenttuning_plugin.reports.runs.table import METHOD, RunTable
from agenttuning_plugin.reports.runs.text import blocks_of, missing_lines

_FILES = ("agenttuning_report.html", "view.html", "README.md", "evaluations.jsonl")


def render_page(table: RunTable, title: str, place: Path) -> str:
    """Render the page.

    Args:
        table: The runs.
        title: Title, such as the sweep's name.
        place: Where the page will be, for links to files of the runs.
    """
    runs = [
        {"name": run.name, "arm": arm.label, "links": _links(run.folder, place.parent)}
        for arm in table.arms
        for run in arm.runs
    ]
    page: str = (
        _environment()
        .get_template("runs/page.html")
        .render(
            title=title,
            table=table,
            method=METHOD,
            missing=missing_lines(table),
            plots=[plot(table, figure) for figure in table.figures],
            plot_style=Markup(style()),  # our own file
            blocks=blocks_of(table),
            runs=runs,
        )
    )
    return page


def _links(folder: Path, start: Path) -> list[tuple[str, str]]:
    found = [folder / name for name in _FILES if (folder / name).is_file()]
    return [(file.name, quote(Path(os.path.relpath(file, start)).as_posix())) for file in found]


@lru_cache(maxsize=1)
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("agenttuning_plugin.reports", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = show
    return environment
