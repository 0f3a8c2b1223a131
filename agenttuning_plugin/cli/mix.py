"""`agenttuning build` and `agenttuning explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from agenttuning_plugin.cli.common import (
    EndOfTurn,
    Json,
    Template,
    emit,
)
from agenttuning_plugin.cli.model_options import OptionGroup, with_options
from agenttuning_plugin.console import console, errors
from dataset_builders.errors import ConfigError
from dataset_builders.mixing.pools import GPT4_SHARE
from dataset_builders.sources.spec import SourceSpec

if TYPE_CHECKING:
    from agenttuning_plugin.reports.explain import Example
    from agenttuning_plugin.reports.segments import Segment

_SHOWN = 160  # characters shown of a span


_AGENT = OptionGroup(
    SourceSpec,
    only=(
        *("min_reward", "train_on", "reasoning", "rows", "keep_last_turns"),
        *("judge_model", "judge_base_url", "judge_api_key_env", "judge_share"),
        *("failed", "failed_marker", "success_marker", "failed_limit"),
    ),
    panel="Agent data",
)


@with_options(_AGENT)
def build(
    context: typer.Context,
    out_folder: Annotated[Path, typer.Option("--out", help="Output folder; must not exist.")],
    num_examples: Annotated[
        int | None,
        typer.Option(min=1, help="Number of examples in the mix; required without --recipe."),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="Build the mix of this recipe, as in training; excludes the other settings."
        ),
    ] = None,
    agent: Annotated[
        list[str] | None, typer.Option(help="Agent data: file, folder or hub id; repeatable.")
    ] = None,
    general: Annotated[
        list[str] | None, typer.Option(help="General chat: file, folder or hub id; repeatable.")
    ] = None,
    recover: Annotated[
        list[str] | None,
        typer.Option(
            help="Collection whose failed episodes are recovered as agent data, as by "
            "`agenttuning recover`; repeatable."
        ),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            help="Variants of agent data: tools, wording, order, variants=N, original=false, "
            "no_tool_share=S, file=F or seed=N; repeatable."
        ),
    ] = None,
    eta: Annotated[float, typer.Option(help="Share of agent data, in [0, 1].")] = 0.2,
    eta_unit: Annotated[
        str, typer.Option(help="What eta counts: example (the paper), token or trained_token.")
    ] = "example",
    sampling: Annotated[
        str, typer.Option(help="stratified, or iid for the paper's independent draws.")
    ] = "stratified",
    batch_size: Annotated[
        int, typer.Option(min=1, help="Global batch size: each batch has the share.")
    ] = 64,
    task_weight: Annotated[
        list[str] | None,
        typer.Option(help="Weight of a task within agent data, such as db=2; repeatable."),
    ] = None,
    gpt4_share: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of GPT-4's conversations in general data; 0: no weighting."
        ),
    ] = GPT4_SHARE,
    seed: Annotated[int, typer.Option(help="Seed of the order.")] = 0,
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer folder or hub id; rows are then ids and labels.")
    ] = None,
    max_length: Annotated[int, typer.Option(min=1, help="Maximum tokens of a row.")] = 4096,
    length_policy: Annotated[
        str,
        typer.Option(help="Length policy for longer conversations; see docs/concepts/masks.md."),
    ] = "",
    processes: Annotated[int, typer.Option(min=1, help="Number of encoding processes.")] = 1,
    chat_template: Template = None,
    end_of_turn: EndOfTurn = None,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Mix agent and general data into a dataset on disk, with its manifest and report."""
    from agenttuning_plugin.cli.agent_sources import agent_sources
    from agenttuning_plugin.trainers.axolotl_build import build_recipe
    from agenttuning_plugin.training_data.build import build_to_disk
    from dataset_builders.mixing.planning import Plan
    from dataset_builders.mixing.preparation import Encoding

    if recipe is not None:
        _nothing_beside_recipe(context)
        report = build_recipe(
            out_folder, recipe, processes if _named(context, "processes") else None
        )
        _show_report(report, out_folder, as_json)
        return
    if num_examples is None:
        raise ConfigError("--num-examples: missing, expected the length of the mix, or --recipe")
    options: dict[str, Any] = {"end_of_turn": tuple(end_of_turn or ())}
    if length_policy:
        options["policy"] = length_policy
    source = _AGENT.values(given)
    plan: dict[str, Any] = {"unit": eta_unit, "mode": sampling}
    report = build_to_disk(
        out_folder,
        agent=agent_sources(agent or [], recover or [], vary or [], general or [], source),
        general=general or [],
        plan=Plan(
            eta=eta,
            task_weights=_weights(task_weight or []),
            gpt4_share=gpt4_share or None,
            block=batch_size,
            **plan,
        ),
        num_examples=num_examples,
        seed=seed,
        tokenizer=tokenizer,
        chat_template=chat_template,
        encoding=Encoding(max_length=max_length, **options),
        processes=processes,
    )
    _show_report(report, out_folder, as_json)


def _nothing_beside_recipe(context: typer.Context) -> None:
    """Reject other settings beside --recipe, which would have no effect.

    Raises:
        ConfigError: There is such a setting.
    """
    allowed = {"out_folder", "recipe", "processes", "as_json"}
    for name in context.params.keys() - allowed:
        if _named(context, name):
            option = name.replace("_", "-")
            raise ConfigError(f"--{option}: found with --recipe, which sets it: expected one")


def _named(context: typer.Context, name: str) -> bool:
    """Whether a parameter was given on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _show_report(report: dict[str, Any], out_folder: Path, as_json: bool) -> None:
    from dataset_builders.mixing.preparation import report_lines

    for line in report["warnings"]:
        errors.print(f"warning: {line}", markup=False, soft_wrap=True, style="yellow")
    if as_json:
        emit(report)
        return
    table = Table("", "", title=str(out_folder))
    for key, value in report["mix"].items():
        table.add_row(key.replace("_", " "), str(value))
    console.print(table)
    for note in report["notes"]:
        console.print(note, markup=False, soft_wrap=True)
    for line in report_lines(report):
        console.print(line, markup=False, soft_wrap=True, style="dim")
    console.print(str(out_folder / "report.html"), markup=False, soft_wrap=True)


def explain(
    run: Annotated[
        Path, typer.Argument(help="Folder made by `build`, or a training run's output folder.")
    ],
    step: Annotated[
        int, typer.Option(help="Optimizer step from 0: step k of a trainer's log is k - 1 here.")
    ],
    rank: Annotated[
        int | None, typer.Option(help="Rank, from 0. [default: all]", show_default=False)
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Rows per step, for a folder made by `build`."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show which rows and trained spans made up an optimizer step, from the manifest alone."""
    from agenttuning_plugin.reports.explain import explain as find
    from agenttuning_plugin.reports.rows import open_rows
    from agenttuning_plugin.reports.source_loss import loss_at, loss_line
    from dataset_builders.manifest.store import read_manifest

    manifest = read_manifest(run)
    examples = find(manifest, step, rank=rank, batch_size=batch_size)
    rows = open_rows(manifest)
    texts = [rows.pieces(example) if rows else None for example in examples]
    loss = loss_at(run, step)
    if as_json:
        facts = [_facts(*pair) for pair in zip(examples, texts, strict=True)]
        emit({"step": step, "rank": rank, "loss": loss, "examples": facts})
        return
    for example, pieces in zip(examples, texts, strict=True):
        _show(example, pieces)
    agent = sum(example.side == "agent" for example in examples)
    console.print(
        f"\nstep {step}: {len(examples)} examples, {agent} of them agent data", style="dim"
    )
    if loss:
        console.print(loss_line(loss), style="dim", markup=False, soft_wrap=True)
    if all(pieces is None for pieces in texts):
        console.print("no text: the rows are no longer on this machine", style="dim")


def _weights(options: list[str]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for option in options:
        task, _, value = option.rpartition("=")
        if task in weights:
            raise ConfigError(f"--task-weight: {task} is given twice")
        try:
            weights[task] = float(value)
        except ValueError:
            task = ""
        if not task:
            raise ConfigError(f"--task-weight: found {option!r}, expected TASK=NUMBER")
    return weights


def _facts(example: Example, pieces: list[Segment] | None) -> dict[str, Any]:
    trained = None if pieces is None else [piece.text for piece in pieces if piece.trained]
    return {**example.to_dict(), "trained_text": trained}


def _show(example: Example, pieces: list[Segment] | None) -> None:
    from agenttuning_plugin.reports.segments import one_line

    line = Text(f"{example.position}", style="bold")
    colour = "blue" if example.side == "agent" else "dark_orange"
    line.append(f"  {example.side}", style=colour)
    named = [example.source, example.task, example.id, example.model, example.where]
    line.append("  " + "  ".join(one_line(name, 80) for name in named if name), style="not bold")
    facts = f"exposure {example.exposure}, rank {example.rank}, micro-batch {example.micro_batch}"
    if example.tokens >= 0:
        facts = f"{example.tokens} tokens, {example.trained_tokens} trained, {facts}"
    if example.part:
        facts += f", part {example.part}"
    if example.packed_row is not None:
        facts += f", packed row {example.packed_row}"
    console.print(line, soft_wrap=True)
    console.print(f"    {facts}", style="dim", soft_wrap=True)
    trained = [piece.text for piece in pieces or [] if piece.trained]
    spans: list[Any] = list(example.spans) or [None] * len(trained)
    for number, span in enumerate(spans):
        shown = Text("    ")
        if span is not None:
            shown.append(f"[{span[0]}, {span[1]})  ")
        if number < len(trained):
            shown.append(one_line(trained[number], _SHOWN), style="bold green")
        console.print(shown, soft_wrap=True)
