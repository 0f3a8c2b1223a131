"""Requests of an evaluation to a server; replies are not stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dataset_builders.endpoints.answer import Answer
from dataset_builders.endpoints.client import CHAT, EndpointClient
from dataset_builders.endpoints.endpoint import Endpoint
from dataset_builders.endpoints.errors import ENDPOINT_ERROR, EpisodeEndedError
from dataset_builders.endpoints.reply import CONTEXT_FULL
from dataset_builders.errors import ConfigError, EndpointError
from dataset_builders.finish_reason import is_filter
from evaluators.stats.intervals import log_sum

_HOPELESS = 16
"""Number of rejected requests of a task, with none answered, after which no more are sent."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request to send; see `EndpointClient.send`."""

    body: Mapping[str, Any]
    route: str = CHAT
    raw: bool = False
    tools: str = ""


class Refusals:
    """Rejected requests of a task: an item's error, unless all are rejected.

    Args:
        endpoint: The endpoint, for messages.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._answered = False
        self._refused = 0

    def answered(self) -> None:
        """Record that a request of the task was answered."""
        self._answered = True

    def refused(self, line: str) -> Answer:
        """Return the placeholder of a rejected turn.

        Raises:
            EndpointError: The server refuses all requests of the task.
        """
        self._refused += 1
        if not self._answered and self._refused >= _HOPELESS:
            raise EndpointError(f"{self._endpoint}: all requests are refused: {line}")
        return Answer(refused=line)


async def answer_of(
    client: EndpointClient, request: Request, refusals: Refusals, room: int | None
) -> Answer | None:
    """Send a request of a task.

    Args:
        client: Sends it.
        request: The request.
        refusals: Of the task.
        room: Tokens that the prompt may have; any number if None.

    Returns:
        None where the context has no room.

    Raises:
        EndpointError: The request failed repeatedly, or all of the task are refused.
    """
    try:
        reply = await client.send(request.body, request.route, raw=request.raw, tools=request.tools)
    except EpisodeEndedError as error:
        if error.reason == CONTEXT_FULL:
            return None
        if error.reason == ENDPOINT_ERROR:
            raise EndpointError(f"a request failed repeatedly: {error}") from error
        return refusals.refused(f"{error.reason}: {error}")
    if is_filter(reply.finish_reason):
        return refusals.refused(f"refused_by_endpoint: finish_reason {reply.finish_reason!r}")
    refusals.answered()
    if reply.finish_reason == CONTEXT_FULL:
        return None
    if room is not None and reply.prompt_tokens > room:
        return None
    return reply.answer()


def letter_values(text: str, candidates: list[str], endpoint: Endpoint) -> list[float]:
    """Return log-probabilities of candidates as the first token of a turn.

    Args:
        text: The body of a response with `logprobs`.
        candidates: Texts of a token, without blanks around them.
        endpoint: For messages.

    Returns:
        In nats, summed over all spellings of a candidate, with and without a blank before
        it; -inf if the server does not list it.

    Raises:
        ConfigError: The server gives no probabilities.
    """
    answer_logprobs: Mapping[str, Any] = json.loads(text)["choices"][0].get("logprobs") or {}
    try:
        # No tokens: the turn ended at once, and some servers do not count its end token.
        first = answer_logprobs["content"][0]["top_logprobs"] if answer_logprobs["content"] else []
        top = [(str(each["token"]), float(each["logprob"])) for each in first]
    except (LookupError, TypeError, ValueError):
        raise ConfigError(
            f"{endpoint}: the server gives no probabilities of tokens (logprobs, top_logprobs)"
        ) from None
    found: dict[str, list[float]] = {}
    for token, value in top:
        found.setdefault(token.strip().lstrip("▁Ġ"), []).append(value)
    return [log_sum(found.get(candidate.strip(), [])) for candidate in candidates]
