"""`agenttuning recover`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from agenttuning_plugin.cli.common import Json, check_new_file, emit
from agenttuning_plugin.cli.model_options import OptionGroup, with_options
from agenttuning_plugin.console import console, errors, writing
from dataset_builders.sources.recovery_settings import RecoverSettings

_SETTINGS = OptionGroup(RecoverSettings, skip=("collection",))


@with_options(_SETTINGS)
def recover(
    collection: Annotated[
        Path, typer.Argument(help="Folder made by `agenttuning collect`, with failed episodes.")
    ],
    out: Annotated[Path, typer.Option(help="File to write, .jsonl; must not exist.")],
    as_json: Json = False,
    **given: Any,
) -> None:
    """Continue failed episodes in their environment until the task is solved, as agent data.

    The failed turns stay in the conversation without loss; the loss is on what corrects them.
    """
    from tqdm import tqdm

    from dataset_builders.collection.conversations import write_jsonl
    from dataset_builders.recovery.recover import recover as find

    check_new_file(out)
    with tqdm(desc="recover", unit=" replays", disable=not errors.is_terminal) as bar:
        settings = RecoverSettings(str(collection), **_SETTINGS.values(given))
        result = find(settings, bar.update)
    with writing(out):
        write_jsonl(out, result.conversations)
    report = result.to_json()
    if as_json:
        emit(report | {"out": str(out)})
        return
    for name, reason in result.refused.items():
        errors.print(f"warning: {name}: left out: {reason}", markup=False, soft_wrap=True)
    for name, counts in result.report.items():
        text = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in counts.items())
        console.print(f"{name}: {text}", markup=False, soft_wrap=True)
    console.print(f"{len(result.conversations)} splices: {out}", markup=False, soft_wrap=True)
