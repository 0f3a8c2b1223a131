"""`agenttuning self-replay`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from agenttuning_plugin.cli.common import (
    EndOfTurn,
    Json,
    Template,
    emit,
)
from agenttuning_plugin.cli.model_options import OptionGroup, with_options
from agenttuning_plugin.cli.request_options import json_fields
from agenttuning_plugin.console import console, plain
from dataset_builders.errors import ConfigError
from dataset_builders.sources.made import ReplayEndpoint, SelfReplay

_REPLAY = OptionGroup(SelfReplay, skip=("model", "filters"))
_SERVER = OptionGroup(
    ReplayEndpoint, skip=("name",), panel="Server, instead of a model in this process"
)


@with_options(_REPLAY, _SERVER)
def self_replay(
    model: Annotated[
        str,
        typer.Option(
            help="Folder or hub id of the model that is to be trained; with --base-url its name "
            "on the server."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Output folder; an existing one is resumed.")],
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            help="Filter of answers: refusal, repetition, cut, empty, or none; repeatable. "
            "[default: all four]",
        ),
    ] = None,
    chat_template: Template = None,
    chat_template_kwargs: Annotated[
        list[str] | None,
        typer.Option(
            help="Chat template variable as name=JSON, such as enable_thinking=false; repeatable."
        ),
    ] = None,
    end_of_turn: EndOfTurn = None,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Answer the user turns of a chat source with a model, as general data for its training.

    If interrupted, the same command resumes; no answer is generated or paid for twice.
    """
    from agenttuning_plugin.evaluation.model_loading import load_tokenizer
    from agenttuning_plugin.training_data.made_sources import MakeContext
    from agenttuning_plugin.training_data.self_replay_maker import answer_prompts
    from dataset_builders.masks.template_variables import set_template_variables

    settings = SelfReplay(**_REPLAY.values(given), **_filters(keep))
    server = _SERVER.values(given)
    variables = json_fields(chat_template_kwargs, "--chat-template-kwargs")
    context = MakeContext(out, "", None)
    if server["base_url"] is not None:
        if chat_template or variables or end_of_turn:
            raise ConfigError(
                "--base-url: found with --chat-template, --chat-template-kwargs or --end-of-turn, "
                "expected none of them: the server has its own"
            )
        settings = replace(settings, model=ReplayEndpoint(name=model, **server))
    else:
        _check_local(server)
        tokenizer = load_tokenizer(model, chat_template)
        set_template_variables(tokenizer, variables)
        context = MakeContext(out, model, tokenizer, tuple(end_of_turn or ()))
    report = answer_prompts(settings, context, out)
    if as_json:
        emit(report)
    else:
        _show(report, out)
    if report["stopped"]:
        raise typer.Exit(3)


def _filters(keep: list[str] | None) -> dict[str, Any]:
    if not keep:
        return {}
    if "none" in keep and len(keep) > 1:
        raise ConfigError("--filter: found none with others, expected none alone")
    return {"filters": () if keep == ["none"] else tuple(keep)}


def _check_local(server: Mapping[str, Any]) -> None:
    """Reject options of a server without its address, which would have no effect."""
    for name in ("max_tokens", "max_cost", "prices"):
        if server[name] is not None:
            option = name.replace("_", "-")
            raise ConfigError(f"--{option}: found without --base-url, expected both")


def _show(report: Mapping[str, Any], out: Path) -> None:
    table = Table("", "", title=plain(str(out)), show_header=False)
    for what in ("unread", "conversations", "answers"):
        for name, number in sorted(report[what].items()):
            table.add_row(f"{what}: {name.replace('_', ' ')}", f"{number:,}")
    table.add_row("rows", f"{report['rows']:,}")
    spent = report["spent"]
    table.add_row("requests", f"{spent['requests']:,}")
    if spent["tokens"]:
        table.add_row("tokens", f"{spent['tokens']:,}")
        cost = "unknown" if spent["cost"] is None else f"{spent['cost']:.4f}"
        table.add_row("cost", cost)
    console.print(table)
    if report["stopped"]:
        console.print(
            f"stopped: {report['stopped']}; no data is written before all prompts are answered: "
            "raise the limit and run the same command to resume",
            soft_wrap=True,
        )
        return
    console.print(f"use it in a recipe: general: [{{path: {out}}}]", markup=False, soft_wrap=True)
