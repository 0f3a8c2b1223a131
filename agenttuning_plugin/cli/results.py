"""`agenttuning view`, `compare` and `errors`: inspect the results of evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agenttuning_plugin.cli.common import Json, emit
from agenttuning_plugin.console import console, errors, plain, writing
from dataset_builders.errors import ConfigError


def view(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder of an evaluation, a collection, or a training run with evaluators."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Output file. [default: view.html in the folder]")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Maximum episodes shown per task and step.")
    ] = 500,
) -> None:
    """Write an HTML page of transcripts: thought, action, observation, reward; works offline."""
    from agenttuning_plugin.reports.transcripts.page import render
    from agenttuning_plugin.reports.transcripts.read import read_episodes
    from dataset_builders.storage import replace_text

    shown = read_episodes(folder, limit)
    target = out or folder / "view.html"
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_text(target, render(shown, folder.resolve().name))
    for file, number in shown.left_out.items():
        errors.print(plain(f"{file}: {number} more episodes; --limit shows them"), soft_wrap=True)
    for file, number in shown.without.items():
        line = (
            f"{file}: {number} items have no transcript; `agenttuning compare` shows their scores"
        )
        errors.print(plain(line), soft_wrap=True)
    console.print(plain(f"{len(shown.episodes)} episodes: {target}"), soft_wrap=True)


def compare(
    first: Annotated[Path, typer.Argument(help="Folder of an evaluation or training run.")],
    second: Annotated[
        Path | None,
        typer.Argument(
            help="Second folder. Without it, the first one's last step is compared with its first."
        ),
    ] = None,
    more: Annotated[
        list[Path] | None,
        typer.Argument(help="Further folders; each is compared with the first at its last step."),
    ] = None,
    first_step: Annotated[
        int | None, typer.Option(help="Step in the first folder. [default: its last]")
    ] = None,
    second_step: Annotated[
        int | None, typer.Option(help="Step in the second folder. [default: its last]")
    ] = None,
    all_figures: Annotated[
        bool,
        typer.Option("--all-figures", help="Compare every figure, not only a task's main one."),
    ] = False,
    show: Annotated[
        int, typer.Option(min=0, help="Number of improved and of regressed tasks to list.")
    ] = 8,
    as_json: Json = False,
) -> None:
    """Compare two or more evaluations: paired differences, and which tasks changed."""
    if second is not None and more:
        if first_step is not None or second_step is not None:
            raise ConfigError("`first_step`, `second_step`: expected two folders at most")
        _compare_many([first, second, *more], all_figures=all_figures, as_json=as_json)
        return
    from agenttuning_plugin.reports import compare as comparing
    from agenttuning_plugin.reports.change_table import table

    alone = second is None
    one = comparing.pick(first, first_step, last=not alone)
    two = comparing.pick(second or first, second_step)
    if alone and all(one[name]["step"] == two[name]["step"] for name in one.keys() & two.keys()):
        raise ConfigError(
            f"{first}: found one step, expected several, or another folder to compare it with"
        )
    compared = comparing.compare_evaluations(one, two, every_figure=all_figures)
    if as_json:
        emit([row.as_json() for row in compared])
        return
    names = ("start", "end") if alone else (first.name or "first", (second or first).name)
    console.print(table(compared, *names, flips=True))
    for line in comparing.flips(compared, show) if show else []:
        console.print(plain(line), soft_wrap=True)
    lines = comparing.warnings(compared) + comparing.recorded_warnings(two)
    for line in lines + comparing.unpaired(one, two, compared):
        errors.print(plain(line), soft_wrap=True)


def _compare_many(folders: list[Path], *, all_figures: bool, as_json: bool) -> None:
    from agenttuning_plugin.reports.runs import text
    from agenttuning_plugin.reports.runs.arms import ARM
    from agenttuning_plugin.reports.runs.table import make_table

    made = make_table(folders, by=[ARM], against=folders[0], every_figure=all_figures)
    if as_json:
        emit(made.as_json())
    else:
        console.print(text.as_terminal(made))
    for line in text.missing_lines(made):
        errors.print(plain(line), soft_wrap=True)


def list_errors(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder of an evaluation, a collection, or a training run with evaluators."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Show failure modes of episodes: the share of each, by task and step."""
    from agenttuning_plugin.reports import failures as error_analysis

    rows = error_analysis.read_rates(folder)
    if as_json:
        emit([row.as_json() for row in rows])
        return
    console.print(error_analysis.table(rows))
