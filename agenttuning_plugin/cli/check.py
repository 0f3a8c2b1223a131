"""`agenttuning check`: the report on one screen, or as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from agenttuning_plugin.cli.common import Json, emit
from agenttuning_plugin.config.findings import GROUPS, Finding
from agenttuning_plugin.console import console, errors, plain
from agenttuning_plugin.preflight.report import Report

_COLOURS = {"ok": "green", "warning": "yellow", "error": "bold red"}


def check(
    recipe: Annotated[Path, typer.Argument(help="An Axolotl recipe.")],
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Read and encode all data, hub data too; uses and fills the recipe's cache.",
        ),
    ] = False,
    num_processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes that training is started with. [default: as in the recipe's comment "
            "`accelerate launch --num_processes N`, else one per GPU here]",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a recipe would train on, with all its problems, before training.

    Reads the first 512 conversations of each source, or all of a source of up to 12 MB, builds the
    run's rows of them, and creates each evaluator. Exit code 0 if there is no error (warnings are
    allowed), otherwise 1.
    """
    from agenttuning_plugin.preflight.check import recipe_report

    show(recipe_report(recipe, full=full, processes=num_processes), as_json=as_json)


def show(report: Report, *, as_json: bool) -> None:
    """Print a report and exit with 1 if it has an error; errors go to standard error.

    Raises:
        typer.Exit: Always.
    """
    if as_json:
        emit(report.as_json())
        raise typer.Exit(0 if report.ok else 1)
    for group in GROUPS:
        lines = [each for each in report.findings if each.group == group and each.level != "error"]
        if lines:
            console.print(f"[bold]{group}[/bold]")
        for finding in lines:
            console.print(_line(finding), soft_wrap=True)
    for line in _errors(report):
        errors.print(line, soft_wrap=True)
    if report.ok:
        warnings = len(report.of("warning"))
        console.print(f"no error, {warnings} warning(s)", highlight=False)
    raise typer.Exit(0 if report.ok else 1)


def _line(finding: Finding) -> str:
    colour, level = _COLOURS[finding.level], f"{finding.level:>9}"
    return f"[{colour}]{level}[/{colour}]  {plain(f'{finding.what}: {finding.detail}')}"


def _errors(report: Report) -> Iterator[str]:
    for finding in report.of("error"):
        detail = finding.detail.removeprefix(f"{report.recipe}: ")
        beginning = "" if detail.startswith(report.recipe) else f"{report.recipe}: "
        yield f"[bold red]error:[/bold red] {plain(beginning + detail)}"
