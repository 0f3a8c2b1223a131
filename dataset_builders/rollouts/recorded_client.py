"""Ledger of paid replies: a request that was paid for is never sent again."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from dataset_builders.endpoints.client import EndpointClient
from dataset_builders.endpoints.errors import EpisodeEndedError, ends_episode
from dataset_builders.endpoints.reply import Reply
from dataset_builders.endpoints.requests import Sampling, request_key
from dataset_builders.errors import EndpointError
from dataset_builders.rollouts.ledger import ReplyLog, Turn
from dataset_builders.rollouts.policy import Policy, TurnRequest


class RecordedClient(Policy):
    """Asks a model, and writes every answer down before anybody sees it.

    Args:
        transport: Sends the requests.
        sampling: How the model writes.
        log: Where replies are written down, and found again.
        must_count: Whether replies without a count of tokens stop everything, because
            limits could not be kept.

    Attributes:
        transport: See above.
    """

    def __init__(
        self,
        transport: EndpointClient,
        sampling: Sampling,
        log: ReplyLog,
        *,
        must_count: bool = False,
    ) -> None:
        self.transport = transport
        self._sampling = sampling
        self._log = log
        self._must_count = must_count
        self._asked: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def next_turn(self, request: TurnRequest) -> Reply:
        """Continue a dialogue.

        A request that has been paid for is not sent again. The reply is durable before it
        is returned.

        Args:
            request: The dialogue; the sampling's limit of tokens overrides its own.

        Raises:
            EpisodeEndedError: This episode cannot go on; its exit reason says why.
            UnprovenError: It cannot, and no request was answered meanwhile: perhaps none can be.
            EndpointError: No episode can go on.
        """
        endpoint = self.transport.endpoint
        body = self._sampling.request(
            endpoint.model, request.messages, request.max_tokens, request.attempt
        )
        key = request_key(body, request.attempt)
        # Two tasks may ask the same at the same time; one of them pays.
        lock = self._asked.setdefault(key, asyncio.Lock())
        async with lock:
            reply = await self._log.reply(key)
            if reply is None:
                reply = await self.transport.send(body)
            place = request.task_id, request.attempt, request.round, request.purpose
            await self._log.record(Turn(*place, request.messages[-1].content, key, reply))
        if self._must_count and not reply.counted:
            raise EndpointError(
                f"{endpoint}: the endpoint does not say how many tokens it used, "
                "so limits on tokens or cost cannot be kept"
            )
        if reason := ends_episode(reply):
            raise EpisodeEndedError(reason)
        return reply
