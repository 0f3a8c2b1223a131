"""Policies over a function that answers dialogues: in batches, or one at a time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from dataset_builders.conversation import Message
from dataset_builders.endpoints.answer import Answer
from dataset_builders.endpoints.errors import EpisodeEndedError
from dataset_builders.endpoints.reply import CONTEXT_FULL, Reply, reply_of
from dataset_builders.rollouts.policy import Policy, TurnRequest
from dataset_builders.rollouts.threads import WorkerPool, in_caller_thread

AnswerTurns = Callable[[Sequence[Sequence[Message]], int, Sequence[str]], Sequence[str | None]]
"""Writes the next assistant turn of each dialogue with a token limit, in order; None if a turn does
not fit the context. The last argument has the tools of each dialogue, as in `TurnRequest`. An
`Answer` has more information on a turn."""

_NOTICEABLE = 0.1
"""Minimum seconds of a batch for overlapping environments to matter."""


class BatchingPolicy(Policy):
    """Gathers pending turns for a local model and answers them in one batch.

    A batch waits for all episodes in play. If environments take longer than the previous batch
    took, it starts with at least half of the episodes while the environments of others still run: a
    batch of half the episodes may take as long as one of all. If the model's turns depend only on
    the dialogue, trajectories do not depend on timing.

    Args:
        answer: The model; called in the thread that `play` was called from.
    """

    def __init__(self, answer: AnswerTurns) -> None:
        self._answer = answer
        self._episodes = 0
        self._pending: list[tuple[TurnRequest, asyncio.Future[Reply]]] = []
        self._running: asyncio.Task[None] | None = None
        self._patience = math.inf

    def set_in_play(self, episodes: int) -> None:
        """See `Policy.set_in_play`."""
        self._episodes = episodes
        self._look()

    async def next_turn(self, request: TurnRequest) -> Reply:
        """See `Policy.next_turn`."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._pending.append((request, future))
        self._look()
        return await future

    def _look(self) -> None:
        """Start a batch if it need not wait for further turns."""
        if self._running is not None or not self._pending:
            return
        if len(self._pending) < self._episodes:
            if 2 * len(self._pending) < self._episodes or self._patience == math.inf:
                return
            loop = asyncio.get_running_loop()
            if (left := self._patience - loop.time()) > 0:
                loop.call_later(left, self._look)
                return
        batch, self._pending = self._pending, []
        # In the order of the episodes' start, independent of the environments' speed.
        batch.sort(key=lambda pending: pending[0].index)
        self._running = asyncio.create_task(self._run(batch))

    async def _run(self, batch: Sequence[tuple[TurnRequest, asyncio.Future[Reply]]]) -> None:
        loop, requests = asyncio.get_running_loop(), [request for request, _ in batch]
        begun = loop.time()
        try:
            replies = await in_caller_thread(self._replies, requests)
        except Exception as error:
            replies = [error] * len(batch)
        ended = loop.time()
        taken = ended - begun
        self._patience = ended + taken if taken >= _NOTICEABLE else math.inf
        self._running = None
        for (_, future), reply in zip(batch, replies, strict=True):
            if future.done():
                continue
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)
        self._look()

    def _replies(self, requests: Sequence[TurnRequest]) -> list[Reply | Exception]:
        return _answer_all(self._answer, requests)


class AttemptPolicy(BatchingPolicy):
    """Batches turns for a local model that samples each attempt with another seed.

    A local model's turn depends only on the dialogue and the seed: with one seed a second attempt
    at a task would repeat the first.

    Args:
        answer_of: Returns the model for a number of attempt, from 0.
    """

    def __init__(self, answer_of: Callable[[int], AnswerTurns]) -> None:
        super().__init__(answer_of(0))
        self._answer_of = answer_of

    def _replies(self, requests: Sequence[TurnRequest]) -> list[Reply | Exception]:
        replies: dict[int, Reply | Exception] = {}
        for attempt in sorted({request.attempt for request in requests}):
            places = [n for n, request in enumerate(requests) if request.attempt == attempt]
            asked = [requests[place] for place in places]
            answered = _answer_all(self._answer_of(attempt), asked)
            replies |= dict(zip(places, answered, strict=True))
        return [replies[place] for place in range(len(requests))]


class ConcurrentPolicy(Policy):
    """Answers turns independently and concurrently, for a model behind a server.

    Args:
        answer: The model; called from several threads at once, with one dialogue each.
    """

    def __init__(self, answer: AnswerTurns) -> None:
        self._answer = answer
        self._workers = WorkerPool()

    def set_in_play(self, episodes: int) -> None:
        """See `Policy.set_in_play`."""
        if not episodes:
            self._workers.close()

    async def next_turn(self, request: TurnRequest) -> Reply:
        """See `Policy.next_turn`."""
        (reply,) = await self._workers.run(_answer_all, self._answer, [request])
        if isinstance(reply, Exception):
            raise reply
        return reply


def _answer_all(answer: AnswerTurns, requests: Sequence[TurnRequest]) -> list[Reply | Exception]:
    dialogues = [request.messages for request in requests]
    tools = [request.tools for request in requests]
    turns = answer(dialogues, max(request.max_tokens for request in requests), tools)
    if len(turns) != len(dialogues):
        raise ValueError(f"policy: {len(turns)} turns for {len(dialogues)} dialogues")
    return [_reply(turn) for turn in turns]


def _reply(turn: str | None) -> Reply | Exception:
    if turn is None:
        return Reply("", CONTEXT_FULL)
    if isinstance(turn, Answer) and turn.refused:
        return EpisodeEndedError(turn.refused.partition(":")[0], turn.refused)
    return reply_of(turn)
