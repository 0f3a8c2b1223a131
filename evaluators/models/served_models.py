"""Models listed by a server, and neutralising its sampling defaults."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dataset_builders.endpoints.address import hint
from dataset_builders.endpoints.endpoint import Endpoint
from dataset_builders.endpoints.errors import absence
from dataset_builders.errors import EndpointError


class NoModelListError(EndpointError):
    """A server responds, but does not list its models; it may have some."""


NEUTRAL: Mapping[str, Any] = {
    "top_p": 1.0,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Sampling fields that change nothing. vLLM and SGLang fill those that a request leaves out from
the model's `generation_config.json`; a model in this process is decoded without it."""
_FILLING = frozenset({"vllm", "sglang"})


def served_models(endpoint: Endpoint) -> list[str]:
    """Return the names of a server's models; see `listed_models` for errors."""
    return list(listed_models(endpoint))


def neutral_fields(owner: str) -> dict[str, Any]:
    """Return the fields that neutralise a server's own sampling defaults.

    Args:
        owner: Owner of the model in the server's list; vLLM and SGLang give their own names.
    """
    return dict(NEUTRAL) if owner.lower() in _FILLING else {}


def listed_models(endpoint: Endpoint) -> dict[str, str]:
    """Return the owners of a server's models, by model name.

    Raises:
        EndpointError: It does not answer, or its answer has another format.
        MissingExtraError: openai is not installed.
    """

    async def ask() -> dict[str, str]:
        client = endpoint.connect()
        try:
            listed = [model async for model in client.models.list()]
            return {model.id: str(getattr(model, "owned_by", "") or "") for model in listed}
        except Exception as error:
            # Any error: this server cannot be queried.
            line = absence(error) or " ".join(str(error).split())[:300]
            status = getattr(error, "status_code", None)
            said = hint(endpoint.address, status)
            kind = EndpointError if absence(error) or said else NoModelListError
            raise kind(f"{endpoint.address}: no list of models at /models: {line}{said}") from error
        finally:
            await client.close()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(ask())).result()
