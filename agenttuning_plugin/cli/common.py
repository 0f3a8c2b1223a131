"""Shared by the commands: consoles, JSON output and options."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, get_type_hints

import typer
import yaml
from typer.main import get_command
from typer.models import ParameterInfo

from agenttuning_plugin.console import plain
from dataset_builders.errors import ConfigError

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Template = Annotated[
    str | None,
    typer.Option(
        help="Chat template of this package, such as llama-2, instead of the tokenizer's."
    ),
]
TemplateVariables = Annotated[
    list[str] | None,
    typer.Option(
        "--chat-template-kwargs",
        help="Chat template variable as name=JSON, such as enable_thinking=false; "
        "repeatable. Sent to a server with every request.",
    ),
]
EndOfTurn = Annotated[
    list[str] | None,
    typer.Option(
        help="Additional end-of-turn token besides eos, as eot_tokens in a recipe; repeatable."
    ),
]

ModelName = Annotated[
    str | None, typer.Option(help="Model name on the server. [default: its only model]")
]
ApiKeyEnv = Annotated[str, typer.Option(help="Environment variable with the server's API key.")]

EnvironmentPrompt = Annotated[
    str,
    typer.Option(
        "--prompt", help="Prompt template: own (built in) or published (from AgentInstruct)."
    ),
]
AgentInstructCopy = Annotated[
    str | None,
    typer.Option("--agentinstruct", help="AgentInstruct copy, for the published prompts."),
]
EnvironmentOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        help="Environment option as key=value, such as backend=mariadb; repeatable.",
    ),
]


def parse_options(given: Sequence[str] | None) -> dict[str, Any]:
    """Parse options given as key=value, with YAML values.

    Raises:
        ConfigError: An option has no "=", is repeated, or has a value that is not YAML.
    """
    parsed: dict[str, Any] = {}
    for text in given or ():
        key, sign, value = text.partition("=")
        name = key.strip()
        if not name or not sign or name in parsed:
            raise ConfigError(f"--option: found {text!r}, expected key=value, each key once")
        try:
            parsed[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--option: {text!r}: the value is not YAML; quote it") from error
    return parsed


ENVIRONMENT_OPTIONS: Mapping[str, str] = {
    "prompt": "--prompt",
    "agentinstruct": "--agentinstruct",
    "num_tasks": "--num-tasks",
}
"""Option by setting, for the commands that play an environment."""


@contextmanager
def naming_options(options: Mapping[str, str]) -> Iterator[None]:
    """Replace setting names in errors by the command line options.

    Args:
        options: Option by the name of the setting, such as "--num-tasks" by "num_tasks".

    Raises:
        ConfigError: As raised within, where it begins with a setting or names one after a
            path, with the option in its place.
    """
    try:
        yield
    except ConfigError as error:
        names = "|".join(map(re.escape, sorted(options, key=len, reverse=True)))
        setting = rf"^((?:\S+: )?)({names})(?=: )|(?<=\()({names})(?=\)$)"
        text = re.sub(setting, lambda at: (at[1] or "") + options[at[2] or at[3]], str(error))
        raise type(error)(text) from error


def name_options(app: typer.Typer, argv: Sequence[str], text: str) -> str:
    """Replace settings in backquotes, as lower layers name them, with options of the command.

    Args:
        app: The command line.
        argv: Its arguments; the words of the command come first.
        text: An error, such as "name another `out`".
    """
    command: Any = typer.main.get_command(app)
    for word in argv:
        if word not in (commands := getattr(command, "commands", {})):
            break
        command = commands[word]
    options = {each.name: each.opts[0] for each in command.params if each.opts[0].startswith("--")}
    return re.sub(r"`(\w+)`", lambda at: options.get(at[1], at[0]), text)


def literal_help(app: typer.Typer) -> None:
    """Show help texts literally: rich would parse `[default: all]` as markup.

    Args:
        app: The command line; its sub-commands are included.
    """
    callbacks = [command.callback for command in app.registered_commands]
    if app.registered_callback is not None:
        callbacks.append(app.registered_callback.callback)
    for callback in callbacks:
        if callback is None:
            continue
        function = inspect.unwrap(callback)
        # Evaluated once and stored: each evaluation of the annotations creates new options.
        function.__annotations__ = get_type_hints(function, include_extras=True)
        for hint in function.__annotations__.values():
            for info in getattr(hint, "__metadata__", ()):
                if isinstance(info, ParameterInfo) and info.help:
                    # Shared options occur once per command.
                    info.help = plain(info.help.replace(r"\[", "["))
    for group in app.registered_groups:
        if group.typer_instance is not None:
            literal_help(group.typer_instance)


def emit(value: Any) -> None:
    """Print JSON without rich's wrapping and colours."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def command_of(app: typer.Typer) -> Any:
    """Return the click command of a command line, after `literal_help`.

    Restores the help of positional arguments, which typer 0.25 loses with click 8.5.
    """
    command = get_command(app)
    _restore_help(command)
    return command


def _restore_help(command: Any) -> None:
    hints = getattr(inspect.unwrap(command.callback), "__annotations__", {})
    for parameter in command.params:
        if not getattr(parameter, "help", None):
            for info in getattr(hints.get(parameter.name), "__metadata__", ()):
                if isinstance(info, ParameterInfo):
                    parameter.help = info.help
    for inner in getattr(command, "commands", {}).values():
        _restore_help(inner)
