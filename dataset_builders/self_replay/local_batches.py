"""Answers of a model in this process: in batches, stored before they are used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from dataset_builders.endpoints.reply import CONTEXT_FULL, Reply, reply_of
from dataset_builders.endpoints.requests import Sampling, request_key
from dataset_builders.rollouts.answered import answered_text
from dataset_builders.rollouts.ledger import ReplyLog, Turn
from dataset_builders.rollouts.model_policies import AnswerTurns
from dataset_builders.rollouts.policy import Policy, TurnRequest
from dataset_builders.rollouts.threads import in_caller_thread


class RecordedBatches(Policy):
    """Gathers all pending requests and answers those of similar length together.

    A batch is stored as soon as it is answered: a killed process loses one batch. Call it from
    within `threads.run_in_thread`; the model runs in the thread that called that.

    Args:
        answer: The model.
        log: Stores and returns replies.
        sampling: Sampling settings; part of a stored reply's key.
        model: Name or digest of the model, likewise.
        batch_size: Maximum requests per batch.
    """

    def __init__(
        self, answer: AnswerTurns, log: ReplyLog, sampling: Sampling, model: str, batch_size: int
    ) -> None:
        self._answer = answer
        self._log = log
        self._sampling = sampling
        self._model = model
        self._batch_size = batch_size
        self._pending: dict[str, tuple[TurnRequest, asyncio.Future[Reply]]] = {}
        self._running: asyncio.Task[None] | None = None

    async def next_turn(self, request: TurnRequest) -> Reply:
        """See `Policy.next_turn`."""
        body = self._sampling.request(
            self._model, request.messages, request.max_tokens, request.attempt
        )
        key = request_key(body, request.attempt)
        reply = await self._log.reply(key)
        if reply is None:
            reply = await self._batched(key, request)
        place = request.task_id, request.attempt, request.round, request.purpose
        await self._log.record(Turn(*place, answered_text(request.messages), key, reply))
        return reply

    async def _batched(self, key: str, request: TurnRequest) -> Reply:
        if key not in self._pending:
            loop = asyncio.get_running_loop()
            self._pending[key] = (request, loop.create_future())
        future = self._pending[key][1]
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await asyncio.shield(future)

    async def _run(self) -> None:
        try:
            while self._pending:
                # All dialogues that can go on put their next request before a batch is chosen.
                for _ in range(3):
                    await asyncio.sleep(0)
                await self._batch()
        except Exception as error:
            for _, future in self._pending.values():
                future.set_exception(error)
            self._pending.clear()
        finally:
            self._running = None

    async def _batch(self) -> None:
        keys = sorted(self._pending, key=lambda key: _length(self._pending[key][0]))
        chosen = keys[: self._batch_size]
        requests = [self._pending[key][0] for key in chosen]
        dialogues = [request.messages for request in requests]
        limit = max(request.max_tokens for request in requests)
        call: Callable[..., list[Reply]] = self._replies
        replies = await in_caller_thread(call, dialogues, limit)
        for key, request, reply in zip(chosen, requests, replies, strict=True):
            place = request.task_id, request.attempt, request.round, request.purpose
            await self._log.record(Turn(*place, answered_text(request.messages), key, reply))
            self._pending.pop(key)[1].set_result(reply)

    def _replies(self, dialogues: list[list[object]], limit: int) -> list[Reply]:
        turns = self._answer(dialogues, limit, [""] * len(dialogues))  # type: ignore[arg-type]
        return [
            Reply("", CONTEXT_FULL, cost=0.0) if turn is None else _free(reply_of(turn))
            for turn in turns
        ]


def _free(reply: Reply) -> Reply:
    return replace(reply, cost=0.0)


def _length(request: TurnRequest) -> int:
    return sum(len(message.content) for message in request.messages)
