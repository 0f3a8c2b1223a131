"""`agenttuning refusals`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from agenttuning_plugin.cli.common import Json, emit
from agenttuning_plugin.cli.model_options import OptionGroup, with_options
from agenttuning_plugin.console import console
from dataset_builders.errors import ConfigError, StorageError
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

    if out.suffix != ".jsonl":
        raise ConfigError(f"--out: found {out}, expected a file name that ends in .jsonl")
    if out.exists():
        raise ConfigError(f"{out}: exists already, expected a new file")
    settings = Refusals(**_SETTINGS.values(given))
    found = examples(settings)
    try:
        write_jsonl(out, [conversation_of(each, settings.actions) for each in found])
    except OSError as error:
        raise StorageError(f"{out}: cannot be written: {error.strerror}") from error
    harmful = sum(each.label == "harmful" for each in found)
    if as_json:
        emit({"refusals": harmful, "answers": len(found) - harmful, "out": str(out)})
        return
    line = f"{harmful} refusals and {len(found) - harmful} answers: {out}"
    console.print(line, markup=False, soft_wrap=True)
