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
from dataset_builders.endpoints.client import EndpointClient
from dataset_builders.endpoints.concurrency import AdaptiveLimit
from dataset_builders.endpoints.endpoint import Endpoint
from dataset_builders.endpoints.errors import BAD_REQUEST, EpisodeEndedError, ends_episode
from dataset_builders.endpoints.requests import Sampling
from dataset_builders.errors import ConfigError, EndpointError, MissingExtraError
from dataset_builders.settings import read_settings
from evaluators.models.judge_settings import JudgeSettings
from evaluators.models.loop_thread import LoopThread

_KEY = "OPENAI_API_KEY"
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
        settings: Its settings, also as a mapping; None for no judge.
        benchmark: Who asks, for messages.

    Raises:
        ConfigError: There is no judge, a setting is unknown or lacks, or the key is not set.
        MissingExtraError: openai is not installed.
    """

    def __init__(self, settings: JudgeSettings | Mapping[str, Any] | None, benchmark: str) -> None:
        if settings is None:
            raise ConfigError(
                f"{benchmark}: needs a judge, a model behind an OpenAI-compatible endpoint: set "
                "`judge` (model and base_url)"
            )
        if not isinstance(settings, JudgeSettings):
            settings = read_settings(JudgeSettings, settings, f"{benchmark}: judge")
        self._sampling = Sampling(
            temperature=settings.temperature,
            token_field=settings.token_field,
            extra=settings.request,
        )
        self._endpoint = Endpoint(
            settings.model,
            settings.base_url,
            key_variable=settings.api_key_env,
            tries=_TRIES,
            patience=_PATIENCE,
        )
        self._loop = LoopThread()
        self._lock = threading.Lock()
        self._callers = 0
        self._client: EndpointClient | None = None
        self._answered = False
        self._refused = 0
        # Said before the model has answered hours of questions, not after. A local server
        # may want no key: then none of a name of its own is given.
        needed = settings.api_key_env != _KEY or settings.base_url is None
        if needed and not self._endpoint.key:
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


async def _verdict(client: EndpointClient, body: Mapping[str, Any]) -> Verdict:
    try:
        reply = await client.send(body)
    except EpisodeEndedError as error:
        return Verdict("", f"judge: {error.reason}: {error}")
    if reason := ends_episode(reply):
        return Verdict("", f"judge: {reason}: {reason}")
    return Verdict(reply.text)
