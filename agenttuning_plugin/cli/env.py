"""`agenttuning env`: list, set up and validate environments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress

from agenttuning_plugin.cli.common import (
    AgentInstructCopy,
    EnvironmentOptions,
    EnvironmentPrompt,
    Json,
    emit,
    parse_options,
)
from agenttuning_plugin.console import console, errors, plain
from dataset_builders.errors import AgentTuningError, DownloadError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dataset_builders.environments import EnvironmentSpec
    from dataset_builders.rollouts.episode import Trajectory
    from dataset_builders.rollouts.validation import Validation

env_app = typer.Typer(help="List, set up and validate environments.", no_args_is_help=True)

_SHOWN = 10  # failures

Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Folder of the environment's data; for several environments a folder of such "
        "folders, like $AGENTTUNING_DATA.",
    ),
]


@env_app.command("list")
def env_list(data: Data = None, as_json: Json = False) -> None:
    """List the environments, with the number of their tasks or what is missing."""
    from agenttuning_plugin.cli.environment_checks import environment_status

    found = environment_status(data)
    if as_json:
        emit({each.name: each.as_json() for each in found})
        return
    for each in found:
        state = "[yellow]missing[/yellow]" if each.missing else "[green]ready[/green]  "
        if each.stand_in and not each.missing:
            state = f"[yellow]ready ({each.stand_in} only)[/yellow]"
        tasks = ", ".join(f"{split} {number}" for split, number in each.tasks.items())
        text = each.missing or ("evaluation only" if each.held_out else tasks)
        console.print(f"[bold]{each.name:16}[/bold] {state} {plain(text)}", soft_wrap=True)
    if command := next((each.command for each in found if each.command), ""):
        console.print(f"next: {plain(command)}", soft_wrap=True)


@env_app.command("new")
def env_new(
    name: Annotated[str, typer.Argument(help="Name in snake case, such as support_desk.")],
    text: Annotated[
        bool, typer.Option("--text", help="Actions are text instead of tool calls.")
    ] = False,
) -> None:
    """Write NAME.py, a small working environment of your own, and its test, to this folder."""
    from agenttuning_plugin.cli.new_environment import write_environment

    files, reference = write_environment(name, Path(), text=text)
    for line in (
        f"wrote {' and '.join(map(str, files))}; next:",
        f"agenttuning env validate {reference}",
        f"agenttuning collect --env {reference} --oracle --out {name}_data",
        f"agenttuning build --agent {name}_data --general CHAT --num-examples 1000 --out mix",
    ):
        console.print(line, soft_wrap=True, markup=False, highlight=False)


@env_app.command("setup")
def env_setup(
    name: Annotated[
        str, typer.Argument(help="Name from `agenttuning env list`, or agentinstruct or rewoo.")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="Folder of the environment's data; what is fetched is stored there. [default: "
            "the cache, where every command looks]"
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Fetch missing public data without asking.")
    ] = False,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Fetch optional files too, such as WebShop's full catalogue (5.7 GB)."
        ),
    ] = False,
    mirror: Annotated[
        str | None,
        typer.Option(
            help="Fetch from URL/<host>/<path> instead of https://<host>/<path>. "
            "[default: $AGENTTUNING_MIRROR]",
            metavar="URL",
        ),
    ] = None,
) -> None:
    """Fetch an environment's public data and perform its one-time setup; may be called again.

    Shows size, licence and addresses first, and asks. Exit code 2 if a file cannot be fetched.
    """
    from agenttuning_plugin.cli.data_setup import set_up

    def say(text: str) -> None:
        console.print(plain(text), soft_wrap=True, highlight=False)

    try:
        set_up(name, data, say, yes=yes, everything=everything, mirror=mirror)
    except DownloadError as error:
        errors.print(
            f"[bold red]error:[/bold red] {plain(str(error))}", soft_wrap=True, highlight=False
        )
        raise typer.Exit(2) from None


@env_app.command("validate")
def env_validate(
    name: Annotated[
        str,
        typer.Argument(
            help="Name from `agenttuning env list`, module:Class, ./file.py:Class, or all."
        ),
    ] = "all",
    split: Annotated[
        str | None, typer.Option(help="Split to play. [default: the first of train, dev, test]")
    ] = None,
    num_tasks: Annotated[
        int, typer.Option(min=1, help="Number of tasks, spread over the split.")
    ] = 10,
    data: Data = None,
    prompt: EnvironmentPrompt = "own",
    agentinstruct: AgentInstructCopy = None,
    option: EnvironmentOptions = None,
    as_json: Json = False,
) -> None:
    """Validate without a model: the oracle must score 1 on every task, an idle agent 0."""
    from agenttuning_plugin.cli.environment_checks import ALL, resolve_environments, validation_json

    facts: dict[str, dict[str, Any]] = {}
    for environment in resolve_environments(
        name, data, prompt, agentinstruct, parse_options(option)
    ):
        each = environment.name
        try:
            result = _try_out(environment, split, num_tasks)
        except AgentTuningError as error:
            # One that is not set up must not hide the results of the others.
            if name != ALL:
                raise
            text = f"{each}: {str(error).removeprefix(f'{each}: ')}"
            facts[each] = {"ok": False, "error": text}
            errors.print(f"[bold red]error:[/bold red] {plain(text)}", soft_wrap=True)
            continue
        facts[each] = validation_json(result)
        if not as_json:
            _show(result)
    if as_json:
        emit(facts)
    if not all(fact["ok"] for fact in facts.values()):
        raise typer.Exit(1)


def _try_out(environment: EnvironmentSpec, split: str | None, num_tasks: int) -> Validation:
    from agenttuning_plugin.cli.environment_checks import validate_environment

    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:

        def watch(episodes: int) -> Callable[[Trajectory], None]:
            bar = progress.add_task(environment.name, total=episodes)
            return lambda _: progress.advance(bar)

        return validate_environment(environment, split, num_tasks, watch)


def _show(result: Validation) -> None:
    state = "[green]ok[/green]    " if result.ok else "[red]failed[/red]"
    console.print(
        f"{state} [bold]{result.environment}[/bold] {result.split}: oracle {result.oracle:.4g}, "
        f"idle agent {result.idle:.4g} on {result.num_tasks} tasks",
        soft_wrap=True,
    )
    for task, reason in list(result.failures.items())[:_SHOWN]:
        console.print(f"       {plain(f'{task}: {reason}')}", soft_wrap=True)
    if len(result.failures) > _SHOWN:
        console.print(f"       and {len(result.failures) - _SHOWN} more (--json has all)")
