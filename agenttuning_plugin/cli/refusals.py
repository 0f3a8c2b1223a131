"""`agenttuning refusals`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from agenttuning_plugin.cli.common import Json, check_new_file, emit
from agenttuning_plugin.cli.model_options import OptionGroup, with_options
from agenttuning_plugin.console import console, writing
from dataset_builders.sources.made import Refusals

_SETTINGS = OptionGroup(Refusals)


@with_options(_SETTINGS)
def refusals(
    out: Annotated[Path, typer.Option(help="File to write, .jsonl; must not exist.")],
    as_json: Json = False,
    **given: Any,
) -> None:
    """Write refusals of harmful requests, and answers to harmless ones like them, as general data.

    None of the shipped ones is among the requests of `--suite refusal`.
    """
    from dataset_builders.collection.conversations import write_jsonl
    from dataset_builders.refusals.training import conversation_of, examples

    check_new_file(out)
    settings = Refusals(**_SETTINGS.values(given))
    found = examples(settings)
    with writing(out):
        write_jsonl(out, [conversation_of(each, settings.actions) for each in found])
    harmful = sum(each.label == "harmful" for each in found)
    if as_json:
        emit({"refusals": harmful, "answers": len(found) - harmful, "out": str(out)})
        return
    line = f"{harmful} refusals and {len(found) - harmful} answers: {out}"
    console.print(line, markup=False, soft_wrap=True)
