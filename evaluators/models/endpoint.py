"""A model behind an OpenAI-compatible server that answers dialogues."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from dataset_builders.conversation import Message
from dataset_builders.endpoints.answer import Answer, replace_text
from dataset_builders.endpoints.client import COMPLETIONS, EndpointClient
from dataset_builders.endpoints.concurrency import START, AdaptiveLimit
from dataset_builders.endpoints.endpoint import Endpoint
from dataset_builders.endpoints.requests import Sampling, plain_unicode
from dataset_builders.errors import AgentTuningError
from evaluators.models.endpoint_client import Refusals, Request, answer_of, letter_values
from evaluators.models.interface import Decoding, Values
from evaluators.models.loop_thread import LoopThread
from evaluators.models.served_models import (
    NoModelListError,
    listed_models,
    neutral_fields,
    served_models,
)

__all__ = ["EndpointModel", "ServedTask", "served_models"]

_TOP = 20
"""Value of top_logprobs: OpenAI's maximum."""


class EndpointModel:
    """Sends requests for all dialogues concurrently; a `LanguageModel`.

    Failed requests are sent again by the collector's rules, see docs/guides/collect.md. A dialogue
    that the server finds too long is None; one that it refuses otherwise, as by a filter of
    contents, is an `Answer` with `refused` set. A request that fails repeatedly is an
    `EndpointError`: a fault of the server must not lower the model's score.

    Args:
        endpoint: The endpoint.
        max_concurrency: Maximum concurrent requests.
        sampling: The user's: name of the token field, a temperature in place of the tasks',
            further fields.
        fixed: Fields of every request that a task does not set, so that a server does not
            fill them by the model's generation config.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        max_concurrency: int = 64,
        sampling: Sampling | None = None,
        fixed: Mapping[str, Any] | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._ceiling = max_concurrency
        self._sampling = sampling or Sampling()
        self._fixed = dict(fixed or {})
        self._loop = LoopThread()
        self._client: EndpointClient | None = None

    def __str__(self) -> str:
        return str(self._endpoint)

    @property
    def name(self) -> str:
        """Name of the model on the server."""
        return self._endpoint.model

    def configure(self, sampling: Sampling) -> None:
        """Apply the user's sampling settings, and neutralise the server's own defaults.

        Args:
            sampling: See the class.

        Raises:
            EndpointError: The server does not answer.
        """
        self._sampling = sampling
        try:
            owner = listed_models(self._endpoint).get(self.name, "")
        except NoModelListError:  # Servers need not list their models.
            owner = ""
        self._fixed = neutral_fields(owner)

    def in_flight_limit(self) -> int:
        """Current limit of concurrent requests, adapted to the load the server sustains."""
        return START if self._client is None else self._client.limit.limit

    def for_task(self, context_length: int | None = None) -> ServedTask:
        """Return the model for the requests of one task.

        Args:
            context_length: Tokens of prompt and answer together, by the server's count of
                the prompt (`usage`); its own limit alone if None.
        """
        return ServedTask(self, self._endpoint, context_length)

    def chat(
        self,
        dialogues: Sequence[Sequence[Message]],
        decoding: Decoding,
        tools: Sequence[str] | None = None,
    ) -> list[str | None]:
        """See `LanguageModel.chat`."""
        return self.for_task().chat(dialogues, decoding, tools)

    def continue_text(self, prompts: Sequence[str], decoding: Decoding) -> list[str | None]:
        """See `LanguageModel.continue_text`."""
        return self.for_task().continue_text(prompts, decoding)

    def next_token_logprobs(
        self, dialogues: Sequence[Sequence[Message]], candidates: Sequence[str]
    ) -> list[Values | None]:
        """See `LanguageModel.next_token_logprobs`."""
        return self.for_task().next_token_logprobs(dialogues, candidates)

    def close(self) -> None:
        """Close the connections; may be called more than once."""
        client, self._client = self._client, None

        async def last() -> None:
            if client is not None:
                await client.close()

        self._loop.close(last)

    def chat_body(
        self, dialogue: Sequence[Message], decoding: Decoding, tools: str = ""
    ) -> dict[str, Any]:
        """Return the request for the next turn of a dialogue."""
        own = self._sampling
        temperature = decoding.temperature if own.temperature is None else own.temperature
        sampling = Sampling(
            temperature=temperature,
            top_p=decoding.top_p if temperature else None,
            seed=decoding.seed if temperature else None,
            stop=decoding.stop,
            token_field=own.token_field,
            extra=own.extra,
        )
        body = sampling.request(self._endpoint.model, dialogue, decoding.max_new_tokens, 0, tools)
        return {**self._fixed, **body}

    def ask(
        self, requests: Sequence[Request], refusals: Refusals, room: int | None
    ) -> list[Answer | None]:
        """Send a task's requests concurrently; see `endpoint_client.answer_of`."""
        return self._loop.run(lambda: self._ask_all(requests, refusals, room))

    async def _ask_all(
        self, requests: Sequence[Request], refusals: Refusals, room: int | None
    ) -> list[Answer | None]:
        if self._client is None:
            # A refused request is its own fault: whether all are refused is for `Refusals`.
            limit = AdaptiveLimit(self._ceiling)
            self._client = EndpointClient(self._endpoint, limit, proven=True)
        client = self._client
        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(answer_of(client, r, refusals, room)) for r in requests]
        except* AgentTuningError as errors:
            down: BaseException = errors.exceptions[0]
            while isinstance(down, BaseExceptionGroup):
                down = down.exceptions[0]
        else:
            return [task.result() for task in asked]
        raise down


class ServedTask:
    """A served model for the requests of one task; a `LanguageModel`.

    Args:
        model: The model.
        endpoint: Its endpoint.
        context_length: See `EndpointModel.for_task`.
    """

    def __init__(
        self, model: EndpointModel, endpoint: Endpoint, context_length: int | None = None
    ) -> None:
        self._model = model
        self._endpoint = endpoint
        self._context = context_length
        self._refusals = Refusals(endpoint)

    def __str__(self) -> str:
        return str(self._endpoint)

    def chat(
        self,
        dialogues: Sequence[Sequence[Message]],
        decoding: Decoding,
        tools: Sequence[str] | None = None,
    ) -> list[str | None]:
        """See `LanguageModel.chat`."""
        requests = [
            Request(self._model.chat_body(each, decoding, offered), tools=offered)
            for each, offered in zip(dialogues, tools or [""] * len(dialogues), strict=True)
        ]
        return self._texts(requests, decoding)

    def continue_text(self, prompts: Sequence[str], decoding: Decoding) -> list[str | None]:
        """See `LanguageModel.continue_text`."""
        settings = self._model.chat_body([], decoding)
        del settings["messages"]
        settings.pop("chat_template_kwargs", None)  # A plain text is not rendered.
        # Servers support the newer name of the limit only in chat completions.
        settings["max_tokens"] = settings.pop("max_completion_tokens", decoding.max_new_tokens)
        requests = [
            Request({**settings, "prompt": plain_unicode(prompt)}, COMPLETIONS)
            for prompt in prompts
        ]
        return self._texts(requests, decoding)

    def next_token_logprobs(
        self, dialogues: Sequence[Sequence[Message]], candidates: Sequence[str]
    ) -> list[Values | None]:
        """See `LanguageModel.next_token_logprobs`."""
        asked = {"logprobs": True, "top_logprobs": _TOP}
        requests = [
            Request(self._model.chat_body(d, Decoding(1)) | asked, raw=True) for d in dialogues
        ]
        found: list[Values | None] = []
        for text in self._model.ask(requests, self._refusals, self._room(1)):
            if text is None:
                found.append(None)
            elif text.refused:
                found.append(Values((), refused=text.refused))
            else:
                values = letter_values(text, list(candidates), self._endpoint)
                found.append(Values(values, prompt_tokens=text.prompt_tokens))
        return found

    def _texts(self, requests: Sequence[Request], decoding: Decoding) -> list[str | None]:
        answers = self._model.ask(requests, self._refusals, self._room(decoding.max_new_tokens))
        return [None if each is None else replace_text(each, each.strip()) for each in answers]

    def _room(self, max_new_tokens: int) -> int | None:
        return None if self._context is None else self._context - max_new_tokens
