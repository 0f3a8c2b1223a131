"""`agenttuning pairs`: preference pairs from collections."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agenttuning_plugin.cli.common import Json, check_new_file, emit
from agenttuning_plugin.console import console, plain, writing


def pairs(
    collections: Annotated[
        list[Path], typer.Argument(help="Folders made by `agenttuning collect`.")
    ],
    out: Annotated[Path, typer.Option(help="File to write, .jsonl; must not exist.")],
    one_turn: Annotated[
        bool,
        typer.Option(
            "--one-turn", help="End `chosen` and `rejected` with the first turn that differs."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a preference pair of each task with a solved and a failed attempt, for TRL's DPO."""
    from dataset_builders.collection.pairs import write_pairs

    check_new_file(out)
    with writing(out):
        report = write_pairs([each.expanduser() for each in collections], out, one_turn=one_turn)
    if as_json:
        emit({"pairs": report.pairs, "left_out": dict(report.left_out)})
        return
    console.print(plain(f"{out}: {report.pairs:,} pairs"), soft_wrap=True, highlight=False)
    for reason, number in sorted(report.left_out.items()):
        console.print(plain(f"left out: {reason}: {number:,}"), soft_wrap=True, highlight=False)
