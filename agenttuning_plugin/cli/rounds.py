"""`agenttuning rounds`: options and output."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agenttuning_plugin.cli.common import Json, emit
from agenttuning_plugin.cli.model_options import OptionGroup, with_options
from agenttuning_plugin.config.rules import section_of
from agenttuning_plugin.config.shipped import read_recipe
from agenttuning_plugin.console import console, errors, plain
from agenttuning_plugin.rounds.settings import RoundsConfig
from agenttuning_plugin.rounds.state import read_state
from dataset_builders.errors import AgentTuningError, ConfigError

if TYPE_CHECKING:
    from agenttuning_plugin.rounds.loop import RoundsResult

_ROUNDS = OptionGroup(RoundsConfig, skip=("train_from",), names={"filters": "filter"})


@with_options(_ROUNDS)
def rounds(
    recipe: Annotated[Path, typer.Argument(help="Axolotl recipe.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of everything that is made; an existing one is resumed. "
            "[default: the recipe's output folder with -rounds]"
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            help="Output folder of a run of the recipe, to start from. [default: the recipe's "
            "output folder if it holds a model; else the recipe is trained first]"
        ),
    ] = None,
    train_from: Annotated[
        str,
        typer.Option(
            "--from",
            help="Model that a round trains: base (the recipe's) or last (the last accepted one, "
            "an adapter merged).",
        ),
    ] = "base",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")
    ] = False,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Improve a model on its own successes: collect, train, evaluate, accept, repeat.

    If interrupted or killed, the same command resumes.
    """
    from agenttuning_plugin.rounds.loop import run_rounds
    from agenttuning_plugin.rounds.plan import plan_lines
    from agenttuning_plugin.rounds.training import AxolotlTrainer

    content = read_recipe(recipe)
    section_of(content)
    base_model, output = _required(content, recipe)
    values = _ROUNDS.values(given)
    config = RoundsConfig(**values | {"train_from": train_from})
    folder = out or output.with_name(f"{output.name}-rounds")
    begun = start or _start_of(folder, output)
    section = dict(content["agenttuning"])

    def say(line: str) -> None:
        errors.print(plain(line), soft_wrap=True, highlight=False)

    if dry_run:
        for line in plan_lines(config, section, base_model, folder, begun):
            console.print(plain(line), soft_wrap=True, highlight=False)
        return
    trainer = AxolotlTrainer(content, say)
    result = run_rounds(
        config,
        section,
        base_model,
        trainer,
        folder,
        start=begun,
        settings=trainer.settings,
        say=say,
    )
    if as_json:
        emit(_as_json(result))
    else:
        _show(result, folder)


def _as_json(result: RoundsResult) -> dict[str, Any]:
    return {
        "best": str(result.best),
        "accepted": result.accepted,
        "stopped": result.stopped,
        "rounds": result.rounds,
    }


def _show(result: RoundsResult, folder: Path) -> None:
    which = f"of round {result.accepted}" if result.accepted else "the start: no round was accepted"
    lines = [result.stopped] if result.stopped else []
    lines += [f"model: {result.best} ({which})", f"report: {folder / 'rounds.html'}"]
    for line in lines:
        console.print(plain(line), soft_wrap=True, highlight=False)


def _required(recipe: dict[str, Any], path: Path) -> tuple[str, Path]:
    """Return the base model and the output folder that a recipe names."""
    for key in ("base_model", "output_dir"):
        if not isinstance(recipe.get(key), str):
            raise ConfigError(f"{path}: {key}: found {recipe.get(key)!r}, expected text")
    return recipe["base_model"], Path(recipe["output_dir"]).expanduser()


def _start_of(folder: Path, output: Path) -> Path | None:
    """Return the run that rounds began with, or begin with: the recipe's own, if it has ended."""
    from agenttuning_plugin.rounds.loop import TRAINED_FIRST
    from agenttuning_plugin.rounds.training import find_finished

    if state := read_state(folder):
        begun = state["settings"].get("start", TRAINED_FIRST)
        return None if begun == TRAINED_FIRST else Path(begun)
    try:
        return find_finished(output).folder
    except AgentTuningError:
        return None
