"""Sampling settings of a model on a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dataset_builders.errors import ConfigError

if TYPE_CHECKING:
    from dataset_builders.endpoints.requests import Sampling
    from evaluators.evaluator import EvalTarget


def configured(subject: EvalTarget, sampling: Sampling) -> EvalTarget:
    """Apply the sampling options to a model.

    Raises:
        ConfigError: The options apply only to a model on a server, and it is local.
        EndpointError: The server does not answer.
    """
    from dataset_builders.endpoints.requests import Sampling
    from evaluators.models.endpoint import EndpointModel

    if isinstance(subject.server, EndpointModel):
        subject.server.configure(sampling)
    elif sampling != Sampling():
        raise ConfigError(
            "`temperature`, `token_field`, `request`: found with a model that is loaded here, "
            "expected a URL"
        )
    return subject


def sampling_heading(sampling: Sampling) -> dict[str, Any]:
    """Return the options that affect the answers, as part of an evaluation's identity."""
    options = {"temperature": sampling.temperature, "request": dict(sampling.extra) or None}
    return {key: value for key, value in options.items() if value is not None}
