"""Command-line options for requests to a server: sampling and further fields."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dataset_builders.errors import ConfigError
from dataset_builders.settings import read_settings

if TYPE_CHECKING:
    from dataset_builders.endpoints.requests import Sampling
    from evaluators.evaluator import EvalTarget
    from evaluators.models.judge_settings import JudgeSettings

_OWN = ("model", "messages", "stream")

Temperature = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Model at a URL: replaces the tasks' own, for servers that refuse 0.",
    ),
]
TokenField = Annotated[
    str,
    typer.Option(help="Model at a URL: max_tokens or max_completion_tokens."),
]
RequestFields = Annotated[
    list[str] | None,
    typer.Option(help="Model at a URL: further field of requests, as name=JSON; repeatable."),
]
JudgeTemperature = Annotated[
    float | None, typer.Option(min=0, help="Judge's temperature; default 0.")
]
JudgeTokenField = Annotated[str, typer.Option(help="As --token-field, for the judge.")]
JudgeFields = Annotated[
    list[str] | None,
    typer.Option(help="As --request, for the judge; repeatable."),
]


def json_fields(texts: Sequence[str] | None, option: str = "--request") -> dict[str, Any]:
    """Fields of a request, given as name=JSON.

    Args:
        texts: As given.
        option: The option, for messages.

    Raises:
        ConfigError: One is not, or is a field that is not for the user to set.
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


def configured(subject: EvalTarget, sampling: Sampling) -> EvalTarget:
    """A model that is sampled as the options say.

    Raises:
        ConfigError: The options are for a model at a URL, and it is none.
        EndpointError: The server does not answer.
    """
    from dataset_builders.endpoints.requests import Sampling
    from evaluators.models.endpoint import EndpointModel

    if isinstance(subject.server, EndpointModel):
        subject.server.configure(sampling)
    elif sampling != Sampling():
        raise ConfigError(
            "--temperature, --token-field, --request: found with a model that is loaded here, "
            "expected a URL"
        )
    return subject


def sampling_heading(sampling: Sampling) -> dict[str, Any]:
    """What of the options tells one evaluation from another: what decides the answers."""
    told = {"temperature": sampling.temperature, "request": dict(sampling.extra) or None}
    return {key: value for key, value in told.items() if value is not None}
