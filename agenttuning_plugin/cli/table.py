"""`agenttuning table`: compare any number of runs, grouped by their settings."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from agenttuning_plugin.cli.common import Json, emit
from agenttuning_plugin.console import console, errors, plain, writing


class TableFormat(StrEnum):
    """Format of the table on standard output."""

    text = "text"
    md = "md"
    csv = "csv"


def table(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folders of a sweep, of training runs, or of evaluations."),
    ],
    by: Annotated[
        str | None,
        typer.Option(
            help="Keys to group by, separated by commas, such as agenttuning.eta,general; seeds "
            "are replicates. [default: the swept keys, or all that differ]"
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Arm to compare with. [default: base, measured before training, or the first arm]"
        ),
    ] = None,
    figure: Annotated[
        list[str] | None,
        typer.Option(
            help="Evaluator, or evaluator.figure, to show; repeatable. [default: each "
            "evaluator's main figure]"
        ),
    ] = None,
    all_figures: Annotated[
        bool, typer.Option("--all-figures", help="Show every figure, not only the main ones.")
    ] = False,
    format: Annotated[
        TableFormat, typer.Option(help="Format on standard output.")
    ] = TableFormat.text,
    html: Annotated[
        Path | None, typer.Option(help="Also write a page with plots; works offline.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Also write an SVG file of the shown figures.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare any number of runs: means and paired differences over seeds and items."""
    from agenttuning_plugin.reports.runs import text as formats
    from agenttuning_plugin.reports.runs.page import render_page
    from agenttuning_plugin.reports.runs.plot import plot_file
    from agenttuning_plugin.reports.runs.table import make_table

    keys = [key.strip() for key in (by or "").split(",") if key.strip()]
    made = make_table(
        runs, by=keys, against=against, figures=figure or (), every_figure=all_figures
    )
    title = ", ".join(place.resolve().name for place in runs)
    written: list[Path] = []
    if html is not None:
        _write(html, render_page(made, title, html.resolve()))
        written.append(html)
    if plot is not None:
        _write(plot, plot_file(made, made.figures))
        written.append(plot)
    if as_json:
        emit(made.as_json())
    elif format is TableFormat.csv:
        sys.stdout.write(formats.as_csv(made))
    elif format is TableFormat.md:
        sys.stdout.write(formats.as_markdown(made))
    else:
        console.print(formats.as_terminal(made))
    for line in formats.missing_lines(made):
        errors.print(plain(line), soft_wrap=True)
    for place in written:
        errors.print(plain(f"written: {place}"), soft_wrap=True)


def _write(place: Path, text: str) -> None:
    from dataset_builders.storage import replace_text

    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_text(place, text)
