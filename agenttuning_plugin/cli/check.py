"""`agenttuning check`: the report on one screen, or as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from agenttuning_plugin.cli.common import Json, emit
from agenttuning_plugin.config.findings import GROUPS
from agenttuning_plugin.console import console, errors, plain
from agenttuning_plugin.preflight.report import Report
from dataset_builders.errors import ConfigError

if TYPE_CHECKING:
    from agenttuning_plugin.estimates.shape import Method

_COLOURS = {"ok": "green", "warning": "yellow", "error": "bold red"}


def check(
    recipe: Annotated[
        Path,
        typer.Argument(
            help="Axolotl recipe (YAML), TRL script (.py), or with --model a YAML with the section."
        ),
    ],
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Read and encode all data, hub data too; uses and fills the run's cache.",
        ),
    ] = False,
    num_processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes that training is started with. [default: as in the file's own "
            "`accelerate launch --num_processes N`, else one per GPU here]",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Folder or hub id of the model, for a section without a trainer."),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="With --model: longest row in tokens.")
    ] = None,
    micro_batch: Annotated[
        int, typer.Option(min=1, help="With --model: rows of one forward pass.")
    ] = 1,
    accumulation: Annotated[
        int, typer.Option(min=1, help="With --model: forward passes per optimizer step.")
    ] = 1,
    steps: Annotated[int | None, typer.Option(min=1, help="With --model: optimizer steps.")] = None,
    packing: Annotated[
        bool, typer.Option("--packing", help="With --model: pack rows to the longest row.")
    ] = False,
    method: Annotated[
        str, typer.Option(help="With --model: full, lora or qlora, for the estimates.")
    ] = "full",
    device: Annotated[
        str | None,
        typer.Option(
            help="GPU that training will run on, such as '24GB' or 'A100 80GB'. [default: the one "
            "here, else this machine's main memory]"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a run would train on, with all problems, before training.

    Builds the run's rows of the first 512 conversations of each source, or of all of a source of
    up to 12 MB, and creates each evaluator. A script is run, as it is, up to the line that makes
    its trainer or loads its model. Exit code 0 without an error (warnings are allowed), else 1.
    """
    from agenttuning_plugin.preflight.check import launched_processes, recipe_report
    from agenttuning_plugin.preflight.device import device_of
    from agenttuning_plugin.preflight.script import script_report
    from agenttuning_plugin.preflight.section import GivenSettings, section_report

    processes = num_processes or launched_processes(recipe)
    on = None if device is None else device_of(device)
    if recipe.suffix == ".py":
        report = script_report(recipe, full=full, processes=processes, device=on)
    elif model is not None:
        if max_length is None:
            raise ConfigError("max_length: missing, expected the longest row in tokens")
        if method not in ("full", "lora", "qlora"):
            raise ConfigError(f"method: found {method!r}, expected full, lora or qlora")
        kind = cast("Method", method)
        given = GivenSettings(
            model, max_length, micro_batch, accumulation, steps, packing, processes, kind, on
        )
        report = section_report(recipe, given, full=full)
    else:
        report = recipe_report(recipe, full=full, processes=processes, device=on)
    show(report, as_json=as_json)


def show(report: Report, *, as_json: bool) -> None:
    """Print a report and exit with 1 if it has an error; errors go to standard error.

    Raises:
        typer.Exit: Always.
    """
    if as_json:
        emit(report.as_json())
        raise typer.Exit(0 if report.ok else 1)
    for line in screen(report):
        console.print(line, soft_wrap=True)
    for line in _errors(report):
        errors.print(line, soft_wrap=True)
    raise typer.Exit(0 if report.ok else 1)


def screen(report: Report) -> Iterator[str]:
    """Yield the lines of a report in rich's markup, but for its errors, by group."""
    for group in GROUPS:
        found = [each for each in report.findings if each.group == group and each.level != "error"]
        if found:
            yield f"[bold]{group}[/bold]"
        for finding in found:
            colour, level = _COLOURS[finding.level], f"{finding.level:>7}"
            text = plain(f"{finding.what}: {finding.detail}")
            yield f"[{colour}]{level}[/{colour}]  {text}"
    if report.ok:
        yield f"no error, {len(report.of('warning'))} warning(s)"


def _errors(report: Report) -> Iterator[str]:
    for finding in report.of("error"):
        detail = finding.detail.removeprefix(f"{report.recipe}: ")
        beginning = "" if detail.startswith(report.recipe) else f"{report.recipe}: "
        yield f"[bold red]error:[/bold red] {plain(beginning + detail)}"
