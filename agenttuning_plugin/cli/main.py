"""The `agenttuning` command; the commands' logic is in other modules."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from agenttuning_plugin import __version__
from agenttuning_plugin.cli import adopt as cli_adopt
from agenttuning_plugin.cli import check as cli_check
from agenttuning_plugin.cli import collect as cli_collect
from agenttuning_plugin.cli import env as cli_env
from agenttuning_plugin.cli import evaluate as cli_evaluate
from agenttuning_plugin.cli import instructions as cli_instructions
from agenttuning_plugin.cli import merge as cli_merge
from agenttuning_plugin.cli import mix as cli_mix
from agenttuning_plugin.cli import pairs as cli_pairs
from agenttuning_plugin.cli import push as cli_push
from agenttuning_plugin.cli import recover as cli_recover
from agenttuning_plugin.cli import refusals as cli_refusals
from agenttuning_plugin.cli import results as cli_view
from agenttuning_plugin.cli import rounds as cli_rounds
from agenttuning_plugin.cli import self_replay as cli_self_replay
from agenttuning_plugin.cli import serve as cli_serve
from agenttuning_plugin.cli import sweep as cli_sweep
from agenttuning_plugin.cli import table as cli_table
from agenttuning_plugin.cli.common import (
    ApiKeyEnv,
    EndOfTurn,
    Json,
    ModelName,
    Template,
    command_of,
    emit,
    prepare_commands,
)
from agenttuning_plugin.cli.model_options import OptionGroup, with_options
from agenttuning_plugin.console import console, errors, plain
from dataset_builders.errors import AgentTuningError, ConfigError
from dataset_builders.sources.spec import SourceSpec

_ROWS = OptionGroup(SourceSpec, only=("train_on", "reasoning", "rows", "keep_last_turns"))

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
recipe_app = typer.Typer(help="List and copy shipped recipes.", no_args_is_help=True)
app.add_typer(recipe_app, name="recipe")
app.add_typer(cli_env.env_app, name="env")
app.add_typer(cli_instructions.instructions_app, name="instructions")


def main() -> None:
    """Run the command line; errors that a user can fix are one line without traceback."""
    try:
        command_of(app)()
    except AgentTuningError as error:
        errors.print(f"[bold red]error:[/bold red] {plain(str(error))}", soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        errors.print("stopped")
        sys.exit(130)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.print(f"agenttuning-plugin {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """AgentTuning for Axolotl and TRL: agent skills without loss of general ability."""


app.command()(cli_check.check)
app.command()(cli_collect.collect)
app.command()(cli_recover.recover)
app.command()(cli_refusals.refusals)
app.command()(cli_pairs.pairs)
app.command()(cli_self_replay.self_replay)
app.command()(cli_adopt.adopt)
app.command()(cli_mix.build)
app.command()(cli_mix.explain)
app.command()(cli_evaluate.evaluate)
app.command()(cli_merge.merge)
app.command()(cli_push.push)
app.command()(cli_view.compare)
app.command()(cli_table.table)
app.command("errors")(cli_view.list_errors)
app.command()(cli_view.view)
app.command()(cli_serve.serve)
app.command()(cli_rounds.rounds)
app.command()(cli_sweep.sweep)


@app.command()
def demo(
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Only download and collect what the recipe needs.")
    ] = False,
) -> None:
    """Fine-tune a small model on an eta-mix and show what it gained and retained."""
    from agenttuning_plugin.demo import run as steps

    if prepare:
        steps.prepare(console)
    else:
        steps.run(console)


@recipe_app.command("list")
def recipe_list(as_json: Json = False) -> None:
    """List the shipped recipes."""
    from agenttuning_plugin.config.shipped import headline, recipe_names, shipped_recipe

    lines = {name: headline(shipped_recipe(name)) for name in recipe_names()}
    if as_json:
        emit(lines)
        return
    for name, line in lines.items():
        console.print(f"[bold]{name:24}[/bold] {plain(line)}", soft_wrap=True)


@recipe_app.command("copy")
def recipe_copy(
    name: Annotated[str, typer.Argument(help="Name from `agenttuning recipe list`.")],
    to: Annotated[Path, typer.Argument(help="Folder or file to copy to.")] = Path(),
    force: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
) -> None:
    """Copy a shipped recipe, to adapt it."""
    from agenttuning_plugin.config.shipped import shipped_recipe

    source = shipped_recipe(name)
    target = to / source.name if to.is_dir() else to
    if target.exists() and not force:
        raise ConfigError(f"{target}: exists already; --force replaces it")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    console.print(f"{target}", soft_wrap=True)


@app.command()
@with_options(_ROWS)
def inspect(
    data: Annotated[str, typer.Argument(help="File, folder or hub id.")],
    tokenizer: Annotated[str, typer.Option(help="Folder or hub id of the tokenizer.")],
    index: Annotated[int, typer.Option(min=0, help="Conversation to show, from 0.")] = 0,
    chat_template: Template = None,
    end_of_turn: EndOfTurn = None,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Show a conversation as the model sees it, with trained text in green."""
    from agenttuning_plugin.evaluation.model_loading import load_tokenizer
    from agenttuning_plugin.reports.mask import inspect_rows, show
    from dataset_builders.sources.inputs import resolve_source
    from dataset_builders.sources.loading import load_source

    spec = SourceSpec(data, **_ROWS.values(given))
    loaded = load_tokenizer(tokenizer, chat_template)
    conversations = load_source(resolve_source(spec)).conversations
    if index >= len(conversations):
        raise ConfigError(f"--index: found {index}, expected at most {len(conversations) - 1}")
    found = inspect_rows(conversations[index], loaded, end_of_turn or ())
    for row in found:
        for line in row.warnings():
            errors.print(f"warning: {line}", markup=False, soft_wrap=True, style="yellow")
    if as_json:
        first, *more = [row.as_json() for row in found]
        emit({"id": first["id"], "rows": [first, *more]} if more else first)
        return
    for number, row in enumerate(found, 1):
        console.print(show(row.rendered, colour=console.is_terminal))
        which = f"row {number} of {len(found)}, " if len(found) > 1 else ""
        console.print(f"\n[dim]{which}{plain(row.summary())}[/dim]")


@app.command()
def contamination(
    training: Annotated[
        list[str], typer.Option(help="Training data: file, folder or hub id; repeatable.")
    ],
    evaluation: Annotated[
        list[str],
        typer.Option(
            help="Evaluation set in any format, including CSV: file, folder or hub id; repeatable."
        ),
    ],
    field: Annotated[
        list[str] | None,
        typer.Option(help="Field of an evaluation record to compare; repeatable. [default: all]"),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Tokenizer folder or hub id; compares tokens instead of words."),
    ] = None,
    longer_than: Annotated[
        int, typer.Option(min=1, help="Minimum shared span: more than N tokens.")
    ] = 10,
    skips: Annotated[
        int, typer.Option(min=0, help="Number of tokens that may differ within a span.")
    ] = 4,
    show: Annotated[
        int, typer.Option(min=0, help="Number of most contaminated samples to show.")
    ] = 5,
    as_json: Json = False,
) -> None:
    """Measure how much of an evaluation set is in training data, by Llama 2's rule."""
    from agenttuning_plugin.cli import contamination as steps

    report = steps.check_contamination(
        training,
        evaluation,
        fields=field or (),
        tokenizer=tokenizer,
        longer_than=longer_than,
        skips=skips,
    )
    if as_json:
        emit(report)
        return
    steps.show(report, show, console, errors)


@app.command()
def chat(
    model: Annotated[
        str,
        typer.Argument(help="Folder or hub id of a model or adapter, or a URL (…/v1)."),
    ],
    adapter: Annotated[str | None, typer.Option(help="LoRA adapter to apply to the model.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Answer this prompt and exit.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Maximum tokens of an answer.")] = 512,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="Sampling temperature; 0 for greedy decoding.")
    ] = 0.0,
    model_name: ModelName = None,
    api_key_env: ApiKeyEnv = "OPENAI_API_KEY",
    chat_template: Template = None,
    end_of_turn: EndOfTurn = None,
) -> None:
    """Chat with a model in the terminal."""
    from agenttuning_plugin.cli.chat import converse
    from agenttuning_plugin.evaluation.model_loading import close_subject, open_subject

    subject = open_subject(
        model,
        adapter,
        chat_template=chat_template,
        end_of_turn=tuple(end_of_turn or ()),
        model_name=model_name,
        api_key_env=api_key_env,
    )
    try:
        converse(subject, errors, prompt, max_new_tokens, temperature)
    finally:
        close_subject(subject)


prepare_commands(app)  # After all commands are registered.
