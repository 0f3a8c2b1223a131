"""A model behind an OpenAI-compatible server as one that answers."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dataset_builders.collection.client import ChatClient, Endpoint
from dataset_builders.collection.concurrency import AdaptiveLimit
from dataset_builders.collection.episode import CONTEXT_FULL
from dataset_builders.collection.failures import ENDPOINT_ERROR, EpisodeEndedError
from dataset_builders.collection.ledger import Reply
from dataset_builders.collection.pricing import PriceTable
from dataset_builders.collection.requests import (
    Sampling,
    plain_unicode,
    read_reply,
    token_limit,
)
from dataset_builders.conversation import Message
from dataset_builders.errors import AgentTuningError, ConfigError, EndpointError
from dataset_builders.reasoning import Answer
from evaluators.subject import Decoding

_log = logging.getLogger(__name__)

_TOP = 20
"""Likeliest tokens that a server is asked about: the most that OpenAI's gives."""


class EndpointModel:
    """Asks a server for all dialogues at once; a `LanguageModel`.

    Failed requests are sent again by the collector's rules, see docs/collect.md. A dialogue
    that the server finds too long is None; one that it refuses otherwise, as by a filter of
    contents, is an empty turn, with a warning. A request that fails again and again is an
    `EndpointError`: a fault of the server must not lower the model's score.

    Args:
        endpoint: Where.
        max_concurrency: Most requests in flight.
    """

    def __init__(self, endpoint: Endpoint, max_concurrency: int = 64) -> None:
        self._endpoint = endpoint
        self._ceiling = max_concurrency
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._client: _Client | None = None

    def __str__(self) -> str:
        return str(self._endpoint)

    @property
    def name(self) -> str:
        """Its name on the server."""
        return self._endpoint.model

    def chat(self, dialogues: Sequence[Sequence[Message]], decoding: Decoding) -> list[str | None]:
        """See `LanguageModel.chat`."""
        return list(self._ask([self._chat_body(dialogue, decoding) for dialogue in dialogues]))

    def continue_text(self, prompts: Sequence[str], decoding: Decoding) -> list[str | None]:
        """See `LanguageModel.continue_text`."""
        settings = self._chat_body([], decoding)
        del settings["messages"]
        bodies = [
            {_PATH: "/completions", **settings, "prompt": plain_unicode(prompt)}
            for prompt in prompts
        ]
        return list(self._ask(bodies))

    def next_token_logprobs(
        self, dialogues: Sequence[Sequence[Message]], candidates: Sequence[str]
    ) -> list[list[float] | None]:
        """See `LanguageModel.next_token_logprobs`; a blank before a token counts as none."""
        asked = {_PATH: "logprobs", "logprobs": True, "top_logprobs": _TOP}
        bodies = [self._chat_body(d, Decoding(1)) | asked for d in dialogues]
        return [
            None if text is None else _values(text, candidates, self._endpoint)
            for text in self._ask(bodies)
        ]

    def close(self) -> None:
        """Close the connections; may be called more than once."""
        loop, thread, client = self._loop, self._thread, self._client
        self._loop = self._thread = self._client = None
        if loop is not None and thread is not None:
            asyncio.run_coroutine_threadsafe(_wind_up(client), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def _chat_body(self, dialogue: Sequence[Message], decoding: Decoding) -> dict[str, Any]:
        sampling = Sampling(
            temperature=decoding.temperature,
            top_p=decoding.top_p if decoding.temperature else None,
            seed=decoding.seed if decoding.temperature else None,
            stop=decoding.stop,
        )
        return sampling.request(self._endpoint.model, dialogue, decoding.max_new_tokens, 0)

    def _ask(self, bodies: Sequence[dict[str, Any]]) -> list[Answer | None]:
        answers: list[Answer | None] = self._run(lambda: self._ask_all(bodies))
        return answers

    def _run(self, job: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        # A loop of its own in a thread of its own: connections outlive a call, and the
        # caller's thread may have a running loop, as in a notebook.
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(job(), self._loop).result()

    async def _ask_all(self, bodies: Sequence[dict[str, Any]]) -> list[Answer | None]:
        if self._client is None:
            self._client = _Client(self._endpoint, self._ceiling)
        client = self._client
        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(_answer(client, body)) for body in bodies]
        except* AgentTuningError as errors:
            down: BaseException = errors.exceptions[0]
            while isinstance(down, BaseExceptionGroup):
                down = down.exceptions[0]
        else:
            return [task.result() for task in asked]
        raise down


def served_models(endpoint: Endpoint) -> list[str]:
    """Names of the models that a server has.

    Raises:
        EndpointError: It does not answer, or with something else.
        MissingExtraError: openai is not installed.
    """

    async def ask() -> list[str]:
        client = endpoint.connect()
        try:
            return [model.id async for model in client.models.list()]
        except Exception as error:
            # Whatever breaks here: nothing can be asked of this server.
            line = " ".join(str(error).split())[:300]
            raise EndpointError(
                f"{endpoint.address}: no list of models at /models: {line}"
            ) from error
        finally:
            await client.close()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(ask())).result()


_PATH = "path of the request"


async def _wind_up(client: _Client | None) -> None:
    """End what an interrupt has left in flight, then the connections."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    if client is not None:
        await client.close()


class _Client(ChatClient):
    """Requests of more than one kind, none of them written down: records keep the answers."""

    def __init__(self, endpoint: Endpoint, ceiling: int) -> None:
        super().__init__(endpoint, Sampling(), None, AdaptiveLimit(ceiling))  # type: ignore[arg-type]

    async def ask(self, body: dict[str, Any]) -> Reply:
        """Send a request until it is answered or given up."""
        return await self._ask(body)

    async def _send(self, body: dict[str, Any]) -> Reply:
        body = dict(body)
        path = body.pop(_PATH, "")
        if not path:
            return await super()._send(body)
        route = "/chat/completions" if path == "logprobs" else path
        async with asyncio.timeout(self._endpoint.timeout):
            text = await self._client.post(route, body=body, cast_to=str)
        if path == "logprobs":
            read_reply(text, self._endpoint.model, PriceTable())  # raises if it is broken
            return Reply(text=text)
        return read_reply(text, self._endpoint.model, PriceTable(), token_limit(body))


async def _answer(client: _Client, body: dict[str, Any]) -> Answer | None:
    try:
        reply = await client.ask(body)
        cut = reply.finish_reason == CONTEXT_FULL
        return None if cut else Answer(reply.text.strip(), reply.reasoning)
    except EpisodeEndedError as error:
        if error.reason == CONTEXT_FULL:
            return None
        if error.reason == ENDPOINT_ERROR:
            raise EndpointError(f"a request failed again and again: {error}") from error
        _log.warning("a request was refused and counts as an empty answer: %s", error)
        return Answer("")


def _values(text: str, candidates: Sequence[str], endpoint: Endpoint) -> list[float]:
    told = json.loads(text)["choices"][0].get("logprobs") or {}
    try:
        # No token at all: the turn ended at once, and some servers do not count its end.
        first = told["content"][0]["top_logprobs"] if told["content"] else []
        top = [(str(each["token"]), float(each["logprob"])) for each in first]
    except (LookupError, TypeError, ValueError):
        raise ConfigError(
            f"{endpoint}: the server gives no probabilities of tokens (logprobs, top_logprobs)"
        ) from None
    found: dict[str, float] = {}
    for token, value in top:
        name = token.strip().lstrip("▁Ġ")
        found[name] = max(value, found.get(name, -math.inf))
    return [found.get(candidate.strip(), -math.inf) for candidate in candidates]
