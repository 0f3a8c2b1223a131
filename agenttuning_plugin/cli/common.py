"""Shared by the commands: consoles, JSON output and options."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
import yaml
from typer.core import TyperCommand
from typer.main import get_command
from typer.models import ParameterInfo

from agenttuning_plugin.console import plain
from dataset_builders.errors import AgentTuningError, ConfigError

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


def check_new_file(out: Path) -> None:
    """Check that `--out` names a JSON Lines file that does not exist.

    Raises:
        ConfigError: It has another suffix, or exists.
    """
    if out.suffix != ".jsonl":
        raise ConfigError(f"--out: found {out}, expected a file name that ends in .jsonl")
    if out.exists():
        raise ConfigError(f"{out}: exists already, expected a new file")


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


class NamedCommand(TyperCommand):
    """A command whose errors name its options where lower layers name settings."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            AgentTuningError: As raised within; see `name_options`.
        """
        try:
            return super().invoke(ctx)
        except AgentTuningError as error:
            text = name_options(
                str(error), options_of(self), leading=isinstance(error, ConfigError)
            )
            if text == str(error):
                raise
            raise type(error)(text) from error


def options_of(command: Any) -> dict[str, str]:
    """Return a command's options, such as "--num-tasks", by the name of the setting."""
    return {each.name: each.opts[0] for each in command.params if each.opts[0].startswith("--")}


def name_options(text: str, options: Mapping[str, str], *, leading: bool) -> str:
    """Replace names of settings in a message by options of the command line.

    Args:
        text: The message, such as "name another `out`" or "num_tasks: found 0".
        options: Option by setting.
        leading: Also replace a setting without backquotes: one that the message begins with, after
            a path or not, or ends with in brackets.
    """
    text = re.sub(r"`(\w+)`", lambda at: options.get(at[1], at[0]), text)
    names = "|".join(map(re.escape, sorted(options, key=len, reverse=True)))
    if not leading or not names:
        return text
    setting = rf"^((?:\S+: )?)({names})(?=: )|(?<=\()({names})(?=\)$)"
    return re.sub(setting, lambda at: (at[1] or "") + options[at[2] or at[3]], text)


@contextmanager
def naming_options(options: Mapping[str, str]) -> Iterator[None]:
    """Replace names of settings in errors by options, where the two have different names.

    Raises:
        ConfigError: As raised within; see `name_options`.
    """
    try:
        yield
    except ConfigError as error:
        raise type(error)(name_options(str(error), options, leading=True)) from error


def prepare_commands(app: typer.Typer) -> None:
    """Let errors name options, and show help texts literally: rich would parse `[default: all]`.

    Args:
        app: The command line; its sub-commands are included.
    """
    callbacks = [command.callback for command in app.registered_commands]
    if app.registered_callback is not None:
        callbacks.append(app.registered_callback.callback)
    for command in app.registered_commands:
        command.cls = NamedCommand
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
            prepare_commands(group.typer_instance)


def emit(value: Any) -> None:
    """Print JSON without rich's wrapping and colours."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def command_of(app: typer.Typer) -> Any:
    """Return the click command of a command line, after `prepare_commands`.

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
