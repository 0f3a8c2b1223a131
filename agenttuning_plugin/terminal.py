"""What the commands share: consoles, JSON output and options."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from dataset_builders.errors import AgentTuningError, ConfigError, StorageError

console = Console()
"""Results."""

errors = Console(stderr=True)
"""Errors, and what is said beside a result."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Template = Annotated[
    str | None,
    typer.Option(help="Chat template of this package, such as llama-2, for the tokenizer's own."),
]
EndOfTurn = Annotated[
    list[str] | None,
    typer.Option(help="Token beside eos that ends a turn, as a recipe's eot_tokens; repeatable."),
]

EnvironmentData = Annotated[
    str | None, typer.Option("--data", help="Folder of the environment's data.")
]
EnvironmentPrompt = Annotated[
    str,
    typer.Option("--prompt", help="Words around the environment: own or published."),
]
AgentInstructCopy = Annotated[
    str | None,
    typer.Option("--agentinstruct", help="Your AgentInstruct copy, for the published words."),
]
EnvironmentOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        help="Setting of the environment as key=value, such as backend=mariadb; repeatable.",
    ),
]


def parse_options(given: Sequence[str] | None) -> dict[str, Any]:
    """Settings given as key=value, the value read as YAML.

    Raises:
        ConfigError: One has no "=", comes twice, or has a value that is not YAML.
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
"""Option by setting, of the commands that play an environment."""


@contextmanager
def naming_options(options: Mapping[str, str]) -> Iterator[None]:
    """Say errors of settings in the command line's words.

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


@contextmanager
def writing(place: Path | None) -> Iterator[None]:
    """Say in one line that a place cannot be written, as on a full disk.

    Args:
        place: What is written within; none where nothing is.

    Raises:
        StorageError: It cannot be.
    """
    try:
        yield
    except AgentTuningError:
        raise
    except OSError as error:
        if place is None:
            raise
        raise StorageError(f"{place}: cannot be written: {error.strerror or error}") from error


def plain(text: str) -> str:
    """Text that rich prints as it is."""
    return text.replace("[", r"\[")


def emit(value: Any) -> None:
    """Print JSON as it is: rich would wrap and colour it."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n")
