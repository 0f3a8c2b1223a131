"""`agenttuning merge`: options and output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agenttuning_plugin.cli.common import Json, emit
from agenttuning_plugin.console import console, errors, plain


def merge(
    run: Annotated[Path, typer.Argument(help="Output folder of a run, or folder of an adapter.")],
    out: Annotated[
        Path | None, typer.Option(help="New folder of the merged model. [default: RUN/merged]")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Folder or hub id of the base model. [default: the adapter's]"),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Type of the weights: float32, bfloat16, float16. [default: the base's]"),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows on which logits are compared.")] = 8,
    device: Annotated[
        str | None, typer.Option(help="Such as cpu or cuda. [default: a GPU if there is one]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Merge a run's adapter into its base as trained, and check that the logits are the same."""
    from agenttuning_plugin.export.merge import merge_run

    report = merge_run(
        run,
        out,
        base=base,
        dtype=dtype,
        rows=rows,
        device=device,
        say=lambda line: errors.print(plain(line), style="dim", soft_wrap=True, highlight=False),
    )
    for note in report.notes:
        errors.print(f"warning: {note}", markup=False, soft_wrap=True, style="yellow")
    if as_json:
        parity = report.parity
        found = None if parity is None else {**vars(parity), "holds": parity.holds}
        facts = {"dtype": report.dtype, "parity": found, "end_token_ids": report.end_ids}
        emit({"out": str(report.out), **facts, "notes": report.notes})
        return
    if report.parity is not None:
        console.print(plain(report.parity.line()), soft_wrap=True, highlight=False)
    console.print(plain(f"model: {report.out} ({report.dtype})"), soft_wrap=True, highlight=False)
    console.print(plain(f"evaluate it: agenttuning evaluate --model {report.out}"), soft_wrap=True)
