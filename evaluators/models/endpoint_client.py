"""Requests of an evaluation to a server, of several kinds; none are stored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dataset_builders.endpoints.answer import Answer
from dataset_builders.endpoints.concurrency import AdaptiveLimit
from dataset_builders.endpoints.errors import ENDPOINT_ERROR, EpisodeEndedError
from dataset_builders.endpoints.pricing import PriceTable
from dataset_builders.endpoints.reply import CONTEXT_FULL, Reply
from dataset_builders.endpoints.requests import Sampling, read_reply, token_limit
from dataset_builders.errors import ConfigError, EndpointError
from dataset_builders.finish_reason import is_cut, is_filter
from dataset_builders.rollouts.recorded_client import ChatClient, Endpoint
from evaluators.stats.intervals import log_sum

PATH = "path of the request"
"""Key of a request's body, taken out before it is sent; "logprobs" asks for probabilities."""
LOGPROBS = "logprobs"
_CHAT = "/chat/completions"
_HOPELESS = 16
"""Refused requests of a task, and none answered, after which no more are sent."""


class EvaluationClient(ChatClient):
    """Sends chat completions, text completions and requests for probabilities.

    A refused request is its own fault: whether all of a task are refused is for `Refusals`.
    Replies are not kept: an evaluation's records hold the answers.
    """

    def __init__(self, endpoint: Endpoint, ceiling: int) -> None:
        super().__init__(endpoint, Sampling(), None, AdaptiveLimit(ceiling))  # type: ignore[arg-type]
        self.proven = True

    async def ask(self, body: dict[str, Any]) -> Reply:
        """Send a request until it is answered or given up."""
        return await self._ask(body)

    async def _send(self, body: dict[str, Any]) -> Reply:
        body = dict(body)
        path = body.pop(PATH, "")
        if not path:
            return await super()._send(body)
        async with asyncio.timeout(self._endpoint.timeout):
            route = _CHAT if path == LOGPROBS else path
            text = await self._client.post(route, body=body, cast_to=str)
        reply = read_reply(text, self._endpoint.model, PriceTable(), token_limit(body))
        if path != LOGPROBS:
            return reply
        if is_filter(reply.finish_reason):
            return reply
        return replace(reply, text=text)


class Refusals:
    """Requests of one task that the server refused: an error of the item, if others are answered.

    Args:
        endpoint: Where, for messages.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._answered = False
        self._refused = 0

    def answered(self) -> None:
        """Note that a request of the task was answered."""
        self._answered = True

    def refused(self, line: str) -> Answer:
        """What stands for the turn.

        Raises:
            EndpointError: The server refuses all requests of the task.
        """
        self._refused += 1
        if not self._answered and self._refused >= _HOPELESS:
            raise EndpointError(f"{self._endpoint}: all requests are refused: {line}")
        return Answer(refused=line)


async def answer_of(
    client: EvaluationClient, body: dict[str, Any], refusals: Refusals, room: int | None
) -> Answer | None:
    """Send a request of a task.

    Args:
        client: Sends it.
        body: The request.
        refusals: Of the task.
        room: Tokens that the prompt may have; any number if None.

    Returns:
        None where the context has no room.

    Raises:
        EndpointError: The request failed repeatedly, or all of the task are refused.
    """
    try:
        reply = await client.ask(body)
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
    return Answer(
        reply.text,
        cut=is_cut(reply.finish_reason),
        prompt_tokens=reply.prompt_tokens,
        calls=reply.calls,
        reasoning=reply.reasoning,
    )


def letter_values(text: str, candidates: list[str], endpoint: Endpoint) -> list[float]:
    """Log-probabilities of candidates as the first token of a turn.

    Args:
        text: The body of a response with `logprobs`.
        candidates: Texts of a token, without blanks around them.
        endpoint: For messages.

    Returns:
        In nats, summed over all spellings of a candidate, with and without a blank before
        it; -inf where the server does not list it.

    Raises:
        ConfigError: The server gives no probabilities.
    """
    told: Mapping[str, Any] = json.loads(text)["choices"][0].get("logprobs") or {}
    try:
        # No token at all: the turn ended at once, and some servers do not count its end.
        first = told["content"][0]["top_logprobs"] if told["content"] else []
        top = [(str(each["token"]), float(each["logprob"])) for each in first]
    except (LookupError, TypeError, ValueError):
        raise ConfigError(
            f"{endpoint}: the server gives no probabilities of tokens (logprobs, top_logprobs)"
        ) from None
    found: dict[str, list[float]] = {}
    for token, value in top:
        found.setdefault(token.strip().lstrip("▁Ġ"), []).append(value)
    return [log_sum(found.get(candidate.strip(), [])) for candidate in candidates]
