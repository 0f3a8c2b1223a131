"""HTTP client of an OpenAI-compatible endpoint, with all retry logic; stores nothing."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from dataset_builders.endpoints.concurrency import AdaptiveLimit
from dataset_builders.endpoints.endpoint import Endpoint
from dataset_builders.endpoints.errors import Failure, judge
from dataset_builders.endpoints.pricing import PriceTable
from dataset_builders.endpoints.reply import Reply
from dataset_builders.endpoints.requests import read_reply, request_key, token_limit
from dataset_builders.endpoints.retrying import Trail
from dataset_builders.endpoints.system_message import SystemFallback
from dataset_builders.errors import EndpointError
from dataset_builders.finish_reason import BrokenResponseError, FinishWatch
from dataset_builders.tools import tool_names

CHAT = "/chat/completions"
COMPLETIONS = "/completions"


class EndpointClient:
    """Sends concurrent requests and retries each until it is answered or fails for good.

    Args:
        endpoint: The endpoint.
        limit: Limit of concurrent requests.
        prices: Prices of requests.
        may_send: Called before each request is sent; raises to stop it.
        parks: Whether the caller parks a task at an `UnprovenError`, and retries it later.
        proven: See the attribute.

    Attributes:
        endpoint: See above.
        limit: See above.
        retries: Failed requests that were sent again, by class.
        answers: Requests that were answered.
        proven: Whether such requests were answered in an earlier session, or a request that
            is refused is to blame itself for another reason.
        again: Where requests are those of a task that was parked: the number of answers
            that there were then.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        limit: AdaptiveLimit,
        *,
        prices: PriceTable | None = None,
        may_send: Callable[[], None] = lambda: None,
        parks: bool = False,
        proven: bool = False,
    ) -> None:
        self.endpoint = endpoint
        self.limit = limit
        self.retries: Counter[str] = Counter()
        self.answers = 0
        self.proven = proven
        self.again: int | None = None
        self._parks = parks
        self._prices = prices or PriceTable()
        self._may_send = may_send
        self._connection = endpoint.connect()
        self._system = SystemFallback()
        self._finish = FinishWatch()
        self._answered_at = 0.0  # 0: never
        self._took_tools = False

    async def __aenter__(self) -> EndpointClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()

    async def send(
        self, body: Mapping[str, Any], route: str = CHAT, *, raw: bool = False, tools: str = ""
    ) -> Reply:
        """Send a request until it is answered or fails for good.

        Args:
            body: The request's JSON body.
            route: Path behind the endpoint's address.
            raw: Whether the reply's text is the whole body of the response, for fields that
                a `Reply` does not have, such as `logprobs`.
            tools: JSON text of the tools that the request offers, whose calls are read; calls of a
                request that offers none are counted and dropped.

        Raises:
            EpisodeEndedError: This request gets no reply; others may.
            UnprovenError: It gets none, and no request was answered meanwhile.
            EndpointError: The endpoint does not work.
        """

        async def post(body: dict[str, Any]) -> Reply:
            # The connection's own timeout restarts with every byte; this one does not.
            async with asyncio.timeout(self.endpoint.timeout):
                # Not `chat.completions.create`: building its objects takes as long as the rest,
                # and what broken answers hold would be raised as errors of many kinds.
                text = await self._connection.post(route, body=body, cast_to=str)
            reply = read_reply(text, self.endpoint.model, self._prices, token_limit(body), tools)
            return replace(reply, text=text) if raw else reply

        trail = Trail(self.endpoint, parks=self._parks)
        offered = tool_names(tools)
        while True:
            async with self.limit.slot() as slot:
                self._may_send()
                sent = time.monotonic()
                try:
                    reply = await self._system.send(body, post)
                    self._finish.check(reply.finish_reason, request_key(body, 0))
                except _failures() as error:
                    proven = self.proven or self.answers > 0
                    failure = judge(
                        error,
                        proven=proven,
                        secret=self.endpoint.key,
                        tools=() if self._took_tools else offered,
                    )
                    trail.note(failure, self._answered_at)
                    self._slow_down(failure, slot, alone=trail.alone)
                else:
                    self._answered_at = time.monotonic()
                    self.answers += 1
                    self._took_tools = self._took_tools or bool(offered)
                    self.limit.succeeded()
                    seconds = self._answered_at - sent
                    return replace(reply, seconds=seconds, tries=trail.tries + 1)
            trail.give_up(failure, self._answered_at, answers=self.answers, again=self.again)
            self.retries[failure.reason] += 1
            await asyncio.sleep(trail.pause(failure))

    def _slow_down(self, failure: Failure, slot: int, *, alone: bool) -> None:
        """Apply an overload signal; `alone`: only to this request, as others are answered."""
        if failure.overload and not alone:
            self.limit.overloaded(slot)
        if failure.wait is not None:
            if failure.wait > self.endpoint.patience:
                hours = failure.wait / 3600
                raise EndpointError(
                    f"{self.endpoint}: the endpoint asks to wait {hours:.1f} hours; "
                    f"resume then: {failure.message}"
                )
            if not alone:
                self.limit.block(failure.wait)


def _failures() -> tuple[type[Exception], ...]:
    from openai import OpenAIError

    return OpenAIError, TimeoutError, OSError, BrokenResponseError
