"""Options of requests to a server: sampling and extra fields."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dataset_builders.errors import ConfigError
from dataset_builders.settings import read_settings

if TYPE_CHECKING:
    from evaluators.models.judge_settings import JudgeSettings

_OWN = ("model", "messages", "stream")

Temperature = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Sampling temperature on a server; replaces the tasks' own, for servers that reject "
        "0.",
    ),
]
TokenField = Annotated[
    str,
    typer.Option(help="Name of the token limit on a server: max_tokens or max_completion_tokens."),
]
RequestFields = Annotated[
    list[str] | None,
    typer.Option(help="Extra request field for a server, as name=JSON; repeatable."),
]
JudgeTemperature = Annotated[
    float | None, typer.Option(min=0, help="Sampling temperature of the judge; default 0.")
]
JudgeTokenField = Annotated[str, typer.Option(help="Same as --token-field, for the judge.")]
JudgeFields = Annotated[
    list[str] | None,
    typer.Option(help="Same as --request, for the judge; repeatable."),
]


def json_fields(texts: Sequence[str] | None, option: str = "--request") -> dict[str, Any]:
    """Parse request fields given as name=JSON.

    Args:
        texts: As given.
        option: The option, for messages.

    Raises:
        ConfigError: One is malformed, or is a field that cannot be set.
    """
    fields: dict[str, Any] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        try:
            fields[name] = json.loads(value)
        except ValueError as error:
            raise ConfigError(f"{option}: found {text!r}, expected name=JSON: {error}") from error
        if not equals or not name or name in _OWN:
            raise ConfigError(
                f"{option}: found {text!r}, expected a field of sampling as name=JSON"
            )
    return fields


def judge_settings(
    model: str | None,
    base_url: str | None,
    api_key_env: str,
    temperature: float | None,
    token_field: str,
    request: Sequence[str] | None,
) -> JudgeSettings | None:
    """The judge from the options; None for no judge.

    Raises:
        ConfigError: An option has a value that cannot be.
    """
    from evaluators.models.judge_settings import JudgeSettings

    fields = json_fields(request, "--judge-request")
    if model is None:
        return None
    given: dict[str, Any] = {"model": model, "base_url": base_url, "api_key_env": api_key_env}
    given |= {"temperature": temperature or 0.0, "token_field": token_field, "request": fields}
    return read_settings(JudgeSettings, given, "judge")
