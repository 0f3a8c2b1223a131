"""`agenttuning push`: options and output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agenttuning_plugin.console import console, plain
from dataset_builders.stdio import without_bars


def push(
    folder: Annotated[
        Path, typer.Argument(help="Output folder of a run or of `agenttuning merge`.")
    ],
    repo: Annotated[str, typer.Option(help="Name on the hub, such as me/agentlm-7b.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before uploading.")] = False,
) -> None:
    """Upload a model, with its card and chat template, to the Hugging Face hub."""
    from agenttuning_plugin.export import push as steps

    upload = steps.plan_upload(folder, repo, private=private)
    for line in upload.lines():
        console.print(plain(line), soft_wrap=True, highlight=False)
    if not yes:
        typer.confirm("Upload?", abort=True)
    with without_bars():
        console.print(plain(steps.push(upload)), soft_wrap=True, highlight=False)
