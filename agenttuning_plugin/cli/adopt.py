"""`agenttuning adopt`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agenttuning_plugin.cli.common import Json, emit
from agenttuning_plugin.console import console, plain, writing
from dataset_builders.errors import ConfigError


def adopt(
    config: Annotated[Path, typer.Argument(help="An existing Axolotl YAML; it is not modified.")],
    agent: Annotated[
        list[str], typer.Option(help="Agent data: file, folder or hub id; repeatable.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Recipe to write. [default: NAME-agenttuning.yaml next to the given file]"
        ),
    ] = None,
    eta: Annotated[float, typer.Option(min=0, max=1, help="Share of agent data.")] = 0.2,
    force: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
    as_json: Json = False,
) -> None:
    """Convert an Axolotl YAML into a recipe, with its data sets as general data."""
    from agenttuning_plugin.preflight.adopt import adopt as make
    from dataset_builders.storage import replace_text

    target = out or config.with_name(f"{config.stem}-agenttuning{config.suffix or '.yaml'}")
    adopted = make(config, agent, eta)
    if target.exists() and (not force or target.samefile(config)):
        raise ConfigError(
            f"{target}: exists already; --force replaces it, but never the given file"
        )
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_text(target, adopted.text)
    if as_json:
        emit({"recipe": str(target), "notes": adopted.notes})
        return
    for note in adopted.notes:
        console.print(plain(note), soft_wrap=True)
    console.print(plain(f"{target}; next: agenttuning check {target}"), soft_wrap=True)
