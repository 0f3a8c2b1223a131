"""Client that stores every paid reply, so that no request is paid for twice."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from dataset_builders.endpoints.client import EndpointClient
from dataset_builders.endpoints.errors import EpisodeEndedError, ends_episode
from dataset_builders.endpoints.reply import Reply
from dataset_builders.endpoints.requests import Sampling, request_key
from dataset_builders.errors import EndpointError
from dataset_builders.rollouts.answered import answered_text
from dataset_builders.rollouts.ledger import ReplyLog, Turn
from dataset_builders.rollouts.policy import Policy, TurnRequest


class RecordedClient(Policy):
    """Queries a model, and stores every reply before it is used.

    Args:
        transport: Sends the requests.
        sampling: Sampling settings.
        log: Stores and returns replies.
        must_count: Whether replies without token usage stop the run, because limits could not be
            enforced.

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
            EpisodeEndedError: This episode cannot continue; its exit reason states why.
            UnprovenError: It cannot, and no request was answered in the meantime: perhaps none can
                be.
            EndpointError: No episode can continue.
        """
        endpoint = self.transport.endpoint
        body = self._sampling.request(
            endpoint.model, request.messages, request.max_tokens, request.attempt, request.tools
        )
        key = request_key(body, request.attempt)
        # Two tasks may send the same request at the same time; only one pays.
        lock = self._asked.setdefault(key, asyncio.Lock())
        async with lock:
            reply = await self._log.reply(key)
            if reply is None:
                reply = await self.transport.send(body, tools=request.tools)
            place = request.task_id, request.attempt, request.round, request.purpose
            await self._log.record(Turn(*place, answered_text(request.messages), key, reply))
        if self._must_count and not reply.counted:
            raise EndpointError(
                f"{endpoint}: the endpoint does not report its token usage, "
                "so limits on tokens or cost cannot be enforced"
            )
        if reason := ends_episode(reply):
            raise EpisodeEndedError(reason)
        return reply
