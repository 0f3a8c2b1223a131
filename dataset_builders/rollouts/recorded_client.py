"""The client of an OpenAI-compatible endpoint: paid once, retried in this place only."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

from dataset_builders.conversation import Message
from dataset_builders.endpoints.address import check_address
from dataset_builders.endpoints.concurrency import AdaptiveLimit
from dataset_builders.endpoints.errors import REFUSED, EpisodeEndedError, Failure, judge
from dataset_builders.endpoints.pricing import PriceTable
from dataset_builders.endpoints.reply import CONTEXT_FULL, Reply
from dataset_builders.endpoints.requests import (
    Sampling,
    read_reply,
    request_key,
    token_limit,
)
from dataset_builders.endpoints.retrying import Trail
from dataset_builders.endpoints.system_message import SystemFallback
from dataset_builders.errors import ConfigError, EndpointError
from dataset_builders.extras import needs_extra, require_modules
from dataset_builders.finish_reason import BrokenResponseError, FinishWatch, is_filter
from dataset_builders.rollouts.ledger import ACT, RolloutLog, Turn

_OPENAI = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is asked, and how patiently.

    Attributes:
        model: Its name there.
        base_url: Such as "http://127.0.0.1:8000/v1"; if None, that of the variable
            OPENAI_BASE_URL, or OpenAI's.
        key_variable: Environment variable that holds the key. A server that wants none
            need not have it set, if `base_url` is given.
        timeout: Seconds from sending a request to its last byte, however it drips.
        tries: Times that a request is sent before its failure counts; being told to slow
            down (429) is no failure.
        patience: Seconds without any answer after which the endpoint is held to be down.
        back_off: Seconds before the first retry; doubles with each, up to a minute.
    """

    model: str
    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    timeout: float = 600.0
    tries: int = 8
    patience: float = 3600.0
    back_off: float = 0.5

    def __str__(self) -> str:
        return f"{self.model} at {self.address}"

    @property
    def address(self) -> str:
        """Where requests go, without a password that it may hold."""
        address = self.base_url or os.environ.get("OPENAI_BASE_URL") or _OPENAI
        return re.sub(r"(?<=//)[^/@]*@", "", address)

    @property
    def key(self) -> str:
        """The key, or ""."""
        return os.environ.get(self.key_variable, "")

    def check(self) -> None:
        """Check what would prevent `connect` from making a client; nothing is sent.

        Raises:
            MissingExtraError: openai is not installed.
            ConfigError: The variable with the key is not set, or `base_url` is no address.
        """
        require_modules(("openai",), "collect")
        if self.base_url is not None:
            check_address(self.base_url)
        if not self.key and self.base_url is None:
            raise ConfigError(f"{self.key_variable}: not set, expected the endpoint's key")

    def connect(self) -> Any:
        """Make openai's client.

        Raises:
            MissingExtraError, ConfigError: As `check`.
        """
        self.check()
        with needs_extra("collect"):
            import openai
        # Another source of retries would multiply ours, and hide 429s from the limit.
        return openai.AsyncOpenAI(
            api_key=self.key or "none",
            base_url=self.base_url,
            max_retries=0,
            timeout=self.timeout,
            http_client=_transport(openai),
        )


class ChatClient:
    """Asks a model, and writes every answer down before anybody sees it.

    Args:
        endpoint: Where.
        sampling: How.
        ledger: Where replies are written down, and found again.
        limit: How many requests may be in flight.
        prices: What requests cost.
        may_send: Called before each request is sent; raises what has to stop it.
        must_count: Whether replies without a count of tokens stop everything, because
            limits could not be kept.
        parks: Whether the caller puts a task aside at an `UnprovenError`, and asks again later.

    Attributes:
        retries: Failed requests that were sent again, by class.
        answers: Requests that were answered.
        proven: Whether such requests were answered in an earlier session, or a request that
            is refused is to blame itself for another reason.
        again: Where requests are those of a task that was put aside: the number of answers
            that there were then.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        sampling: Sampling,
        ledger: RolloutLog,
        limit: AdaptiveLimit,
        *,
        prices: PriceTable | None = None,
        may_send: Callable[[], None] = lambda: None,
        must_count: bool = False,
        parks: bool = False,
    ) -> None:
        self.limit = limit
        self.retries: Counter[str] = Counter()
        self.answers = 0
        self.proven = False
        self.again: int | None = None
        self._parks = parks
        self._endpoint = endpoint
        self._sampling = sampling
        self._ledger = ledger
        self._prices = prices or PriceTable()
        self._may_send = may_send
        self._must_count = must_count
        self._client = endpoint.connect()
        self._system = SystemFallback()
        self._finish = FinishWatch()
        self._answered_at = 0.0  # 0: never
        self._asked: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def __aenter__(self) -> ChatClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        task_id: str,
        attempt: int = 0,
        round: int = 0,
        max_tokens: int = 1024,
        purpose: str = ACT,
    ) -> Reply:
        """Continue a dialogue.

        A request that has been paid for is not sent again. The reply is durable before it
        is returned.

        Args:
            messages: The dialogue, ending in a user turn.
            task_id: The task it belongs to.
            attempt: Attempt at the task; another attempt is another request.
            round: Turn within the attempt.
            max_tokens: Tokens the reply may have, unless the sampling says otherwise.
            purpose: What the model is asked for.

        Raises:
            EpisodeEndedError: This episode cannot go on; its exit reason says why.
            UnprovenError: It cannot, and no request was answered meanwhile: perhaps none can be.
            EndpointError: No episode can go on.
        """
        body = self._sampling.request(self._endpoint.model, messages, max_tokens, attempt)
        key = request_key(body, attempt)
        # Two tasks may ask the same at the same time; one of them pays.
        lock = self._asked.setdefault(key, asyncio.Lock())
        async with lock:
            reply = await self._ledger.reply(key)
            if reply is None:
                reply = await self._ask(body)
            shown = messages[-1].content
            await self._ledger.record(Turn(task_id, attempt, round, purpose, shown, key, reply))
        if self._must_count and not reply.counted:
            raise EndpointError(
                f"{self._endpoint}: the endpoint does not say how many tokens it used, "
                "so limits on tokens or cost cannot be kept"
            )
        if reason := ends_episode(reply):
            raise EpisodeEndedError(reason)
        return reply

    async def _ask(self, body: dict[str, Any]) -> Reply:
        trail = Trail(self._endpoint, parks=self._parks)
        while True:
            async with self.limit.slot() as slot:
                self._may_send()
                sent = time.monotonic()
                try:
                    reply = await self._system.send(body, self._send)
                    self._finish.check(reply.finish_reason, request_key(body, 0))
                except _failures() as error:
                    proven = self.proven or self.answers > 0
                    failure = judge(error, proven=proven, secret=self._endpoint.key)
                    trail.note(failure, self._answered_at)
                    self._slow_down(failure, slot, alone=trail.alone)
                else:
                    self._answered_at = time.monotonic()
                    self.answers += 1
                    self.limit.succeeded()
                    seconds = self._answered_at - sent
                    return replace(reply, seconds=seconds, tries=trail.tries + 1)
            trail.give_up(failure, self._answered_at, answers=self.answers, again=self.again)
            self.retries[failure.reason] += 1
            await asyncio.sleep(trail.pause(failure))

    async def _send(self, body: dict[str, Any]) -> Reply:
        # The client's own timeout starts anew with every byte; this one does not.
        async with asyncio.timeout(self._endpoint.timeout):
            # Not `chat.completions.create`: building its objects takes as long as the rest,
            # and what broken answers hold would be raised as errors of many kinds.
            text = await self._client.post("/chat/completions", body=body, cast_to=str)
        return read_reply(text, self._endpoint.model, self._prices, token_limit(body))

    def _slow_down(self, failure: Failure, slot: int, *, alone: bool) -> None:
        """Apply a signal of overload; `alone`: only to this request, as others are answered."""
        if failure.overload and not alone:
            self.limit.overloaded(slot)
        if failure.wait is not None:
            if failure.wait > self._endpoint.patience:
                hours = failure.wait / 3600
                raise EndpointError(
                    f"{self._endpoint}: the endpoint asks to wait {hours:.1f} hours; "
                    f"start again then: {failure.message}"
                )
            if not alone:
                self.limit.block(failure.wait)


def ends_episode(reply: Reply) -> str:
    """Exit reason of the episode that a reply ends, though it is paid for; "" if none.

    A filter of the endpoint cut the turn, or the end of the context did.
    """
    if is_filter(reply.finish_reason):
        return REFUSED
    return CONTEXT_FULL if reply.finish_reason == CONTEXT_FULL else ""


def _transport(openai: Any) -> Any:
    """What openai sends with: aiohttp, which halves the time of a request, or its default."""
    try:
        return openai.DefaultAioHttpClient()
    except (AttributeError, RuntimeError):  # An older openai, or aiohttp is not installed.
        return None


def _failures() -> tuple[type[Exception], ...]:
    from openai import OpenAIError

    return OpenAIError, TimeoutError, OSError, BrokenResponseError
