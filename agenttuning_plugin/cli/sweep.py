"""`agenttuning sweep`: options and output."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agenttuning_plugin.cli.common import Json, emit
from agenttuning_plugin.console import console, plain, writing

if TYPE_CHECKING:
    from agenttuning_plugin.sweeps.runner import Jobs


def sweep(
    recipe: Annotated[
        Path, typer.Argument(help="Recipe; it may hold a block `sweep:` with what is varied.")
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Values of a key, as agenttuning.eta=0,0.5,1; a mapping needs a name, as "
            "agenttuning.general=chat:{path: a.jsonl},own:{path: b.jsonl}; repeatable.",
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            help="Number of seeds, counted from the recipe's, or seeds as 1,2,3. [default: 1]"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the sweep. [default: the recipe's output_dir + -sweep]"),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Arms that train at a time. [default: one per GPU, or 1]"),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(help="GPUs to distribute the arms over, as 0,1,2. [default: all visible]"),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU threads of each arm. [default: the cores / --jobs]"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the arms; write and train nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a recipe with every combination of values and seeds; finished arms are kept.

    The same command continues an interrupted sweep.
    """
    from agenttuning_plugin.config.shipped import read_recipe
    from agenttuning_plugin.sweeps.definition import read_definition
    from agenttuning_plugin.sweeps.gpus import gpus_of
    from agenttuning_plugin.sweeps.plan import plan_arms
    from agenttuning_plugin.sweeps.runner import run_arms
    from agenttuning_plugin.sweeps.state import check_finished, is_finished, write_plan
    from agenttuning_plugin.sweeps.swept_keys import check_swept_keys
    from dataset_builders.extras import require_modules

    base = read_recipe(recipe)
    definition = read_definition(base, set_ or (), seeds)
    named = out or Path(f"{base.get('output_dir') or 'outputs/' + recipe.stem}-sweep")
    folder = named.expanduser()
    arms = plan_arms(base, definition, folder)
    if dry_run:
        for arm in arms:
            check_finished(arm)
        states = {arm.name: "finished" if is_finished(arm.folder) else "open" for arm in arms}
        _list(folder, states, as_json)
        return
    require_modules(("axolotl",), "axolotl")
    if not all(is_finished(arm.folder) for arm in arms):
        check_swept_keys(arms)
    run = _jobs(jobs, threads, () if base.get("use_ray") else gpus_of(gpus))
    keys = {key: [value.name for value in values] for key, values in definition.values.items()}
    with writing(folder):
        write_plan(folder, recipe, arms, keys)
        outcome = run_arms(folder, arms, run, lambda line: None if as_json else _say(line))
    if as_json:
        emit({"out": str(folder), "finished": outcome.finished, "failed": outcome.failed})
    elif outcome.failed:
        _say(f"failed: {', '.join(outcome.failed)}; the same command tries them again")
    if outcome.failed:
        raise typer.Exit(1)


def _jobs(jobs: int | None, threads: int | None, gpus: tuple[str, ...]) -> Jobs:
    from agenttuning_plugin.sweeps.runner import Jobs

    number = jobs or len(gpus) or 1
    return Jobs(number, threads or max(1, (os.cpu_count() or 1) // number), gpus)


def _list(folder: Path, states: dict[str, str], as_json: bool) -> None:
    if as_json:
        emit({"out": str(folder), "arms": states})
        return
    for name, state in states.items():
        _say(f"{state:9} {name}")
    _say(f"{len(states)} arms in {folder}")


def _say(line: str) -> None:
    console.print(plain(line), soft_wrap=True, highlight=False)
