"""Judge model that rates answers, behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dataset_builders.conversation import Message
from dataset_builders.endpoints.address import check_address
from dataset_builders.endpoints.client import EndpointClient
from dataset_builders.endpoints.concurrency import AdaptiveLimit
from dataset_builders.endpoints.endpoint import Endpoint
from dataset_builders.endpoints.errors import BAD_REQUEST, EpisodeEndedError, ends_episode
from dataset_builders.endpoints.requests import TOKEN_FIELDS, Sampling
from dataset_builders.errors import ConfigError, EndpointError, MissingExtraError
from evaluators.models.loop_thread import LoopThread

_KEY = "OPENAI_API_KEY"
_KEYS = ("base_url", "model", "api_key_env", "temperature", "token_field", "request")
_CORRECT = re.compile(r"\W*(CORRECT|INCORRECT)\b")
UNDECIDED = "the judge said neither CORRECT nor INCORRECT"
"""Error of a `Verdict` whose `correct` is None."""
_BAD_REQUEST = f"judge: {BAD_REQUEST}:"
_IN_FLIGHT = 8
_SEVERAL = 3
"""Number of rejected requests of one call, with none answered, that blames the endpoint."""
_HOPELESS = 16
"""The same over several calls, which may have one request each."""
_TRIES = 5
_PATIENCE = 300.0
"""Patience in seconds without any answer; shorter than in collection, because training waits."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's answer.

    Attributes:
        text: Its text; "" if there is none.
        error: Why the request failed, in one line; "" if it did not.
    """

    text: str
    error: str = ""

    @property
    def correct(self) -> bool | None:
        """Whether it begins with CORRECT or INCORRECT; None if with neither.

        A truncated answer, for example of a judge that reasons first, thus does not count as
        incorrect.
        """
        found = _CORRECT.match(self.text.upper())
        return None if found is None else found[1] == "CORRECT"


class Judge:
    """Sends questions to the judge model concurrently.

    Calls from several threads at once share their connections and the limit of requests in
    flight, so that the judge is not asked for more at once than one call asks for.

    Args:
        settings: `model`, its name there; `base_url`, such as "http://127.0.0.1:8000/v1",
            OpenAI's by default; `api_key_env`, the environment variable that holds the key,
            OPENAI_API_KEY by default; `temperature`, 0 by default; `token_field`, the name of
            the token limit, "max_tokens" by default; `request`, further fields of requests.
            None for no judge.
        benchmark: Who asks, for messages.

    Raises:
        ConfigError: There is no judge, a setting is unknown or lacks, or the key is not set.
        MissingExtraError: openai is not installed.
    """

    def __init__(self, settings: Mapping[str, Any] | None, benchmark: str) -> None:
        if not settings:
            raise ConfigError(
                f"{benchmark}: needs a judge (a model behind an OpenAI-compatible endpoint): "
                "--judge-model and --judge-base-url, or the setting `judge`"
            )
        if unknown := sorted(settings.keys() - set(_KEYS)):
            raise ConfigError(
                f"{benchmark}: judge: found {', '.join(unknown)}, expected {', '.join(_KEYS)}"
            )
        if not settings.get("model"):
            raise ConfigError(f"{benchmark}: judge: found no model, expected its name")
        variable = settings.get("api_key_env") or _KEY
        try:
            self._sampling = _sampling(settings)
            if settings.get("base_url"):
                check_address(settings["base_url"])
        except ConfigError as error:
            raise ConfigError(f"{benchmark}: judge: {error}") from None
        self._endpoint = Endpoint(
            settings["model"],
            settings.get("base_url") or None,
            key_variable=variable,
            tries=_TRIES,
            patience=_PATIENCE,
        )
        self._loop = LoopThread()
        self._lock = threading.Lock()
        self._callers = 0
        self._client: EndpointClient | None = None
        self._answered = False
        self._refused = 0
        # Checked before the model answers questions for hours, not after. A local server may need
        # no key: then no variable is given.
        if (variable != _KEY or self._endpoint.base_url is None) and not self._endpoint.key:
            raise ConfigError(
                f"{benchmark}: judge: {self._endpoint.key_variable} is not set, "
                "expected the endpoint's key in it"
            )
        if importlib.util.find_spec("openai") is None:
            raise MissingExtraError(
                f"{benchmark}: openai is not installed: pip install 'agenttuning-plugin[collect]'"
            )

    def __str__(self) -> str:
        return str(self._endpoint)

    def ask(self, dialogues: Sequence[Sequence[Message]], max_tokens: int = 2048) -> list[Verdict]:
        """Request the next turn of every dialogue.

        Args:
            dialogues: Each ends in a user turn.
            max_tokens: Longest answer in tokens.

        Returns:
            One verdict per dialogue. Failed requests are sent again, as when data are
            collected; one that still fails alone is a verdict with an error.

        Raises:
            EndpointError: The endpoint is down, or has refused all so far: the three or more
                of a call, or 16.
        """
        with self._connected():
            return self._loop.run(lambda: self._ask_all(dialogues, max_tokens))

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Keep the connections open until the last of several callers is done."""
        with self._lock:
            self._callers += 1
        try:
            yield
        finally:
            with self._lock:
                self._callers -= 1
                if not self._callers:
                    self._loop.close(self._disconnect)

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _ask_all(
        self, dialogues: Sequence[Sequence[Message]], max_tokens: int
    ) -> list[Verdict]:
        if self._client is None:
            # A rejected request is at fault itself, unless all are rejected.
            limit = AdaptiveLimit(_IN_FLIGHT)
            self._client = EndpointClient(self._endpoint, limit, proven=True)
        client, model = self._client, self._endpoint.model
        bodies = [self._sampling.request(model, each, max_tokens, 0) for each in dialogues]
        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(_verdict(client, body)) for body in bodies]
        except* EndpointError as errors:
            down = errors.exceptions[0]
        else:
            return self._unless_all_refused([task.result() for task in asked])
        raise down

    def _unless_all_refused(self, verdicts: list[Verdict]) -> list[Verdict]:
        refused = [each.error for each in verdicts if each.error.startswith(_BAD_REQUEST)]
        self._refused += len(refused)
        self._answered = self._answered or len(refused) < len(verdicts)
        hopeless = len(refused) >= _SEVERAL or self._refused >= _HOPELESS
        if hopeless and not self._answered:
            raise EndpointError(f"{self._endpoint}: all requests are refused: {refused[0]}")
        return verdicts


def _sampling(settings: Mapping[str, Any]) -> Sampling:
    temperature, fields = settings.get("temperature", 0.0), settings.get("request", {})
    if isinstance(temperature, bool) or not isinstance(temperature, int | float):
        raise ConfigError(f"temperature: found {temperature!r}, expected a number")
    if not isinstance(fields, Mapping):
        raise ConfigError(f"request: found {fields!r}, expected fields by name")
    return Sampling(
        temperature=float(temperature),
        token_field=settings.get("token_field", TOKEN_FIELDS[0]),
        extra=dict(fields),
    )


async def _verdict(client: EndpointClient, body: Mapping[str, Any]) -> Verdict:
    try:
        reply = await client.send(body)
    except EpisodeEndedError as error:
        return Verdict("", f"judge: {error.reason}: {error}")
    if reason := ends_episode(reply):
        return Verdict("", f"judge: {reason}: {reason}")
    return Verdict(reply.text)
