"""What is written down of a collection while it runs, and where it can be asked for.

A collection knows only the `RolloutLog`: on one machine that is the `Store` itself, on a
cluster something that hands everything to the driver's store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dataset_builders.endpoints.reply import Reply
from dataset_builders.rollouts.episode import Trajectory

ACT = "act"
"""Purpose of a request for the acting model's next turn."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A reply and its place.

    Attributes:
        task_id: The task.
        attempt: Attempt at the task, from 0.
        round: Turn within the attempt, from 0.
        purpose: "act", or what else a model is asked for, such as "thought".
        shown: The last message that the model was shown.
        key: Key of the request; see `requests.request_key`.
        reply: What the model answered.
    """

    task_id: str
    attempt: int
    round: int
    purpose: str
    shown: str
    key: str
    reply: Reply


@dataclass(frozen=True, slots=True)
class Usage:
    """What an attempt, or a run, took.

    Attributes:
        prompt_tokens: Tokens read.
        completion_tokens: Tokens written.
        cost: In the price table's currency; None where some price is unknown.
        requests: Replies paid for.
        cached_tokens: Tokens read that the endpoint had in its cache; among `prompt_tokens`.
        with_calls: Replies that came with native tool calls, which were dropped.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = 0.0
    requests: int = 0
    cached_tokens: int = 0
    with_calls: int = 0

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.prompt_tokens + self.completion_tokens

    def plus(self, reply: Reply) -> Usage:
        """With one more reply."""
        known = self.cost is not None and reply.cost is not None
        return Usage(
            self.prompt_tokens + reply.prompt_tokens,
            self.completion_tokens + reply.completion_tokens,
            (self.cost or 0.0) + (reply.cost or 0.0) if known else None,
            self.requests + 1,
            self.cached_tokens + reply.cached_tokens,
            self.with_calls + (reply.calls > 0),
        )


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """How an attempt ended.

    Attributes:
        trajectory: What was played.
        attempt: Attempt at the task, from 0.
        final: Whether the task ends with it; else another attempt follows.
        spent: What the attempt took, replies of earlier sessions included.
        index: Number of the episode, in the order in which the session began them.
    """

    trajectory: Trajectory
    attempt: int
    final: bool
    spent: Usage = Usage()
    index: int = 0


class ReplyLog(Protocol):
    """Where paid replies are written down. Each method returns once that is durable."""

    async def reply(self, key: str) -> Reply | None:
        """The reply that was paid for a request, or None."""

    async def record(self, turn: Turn) -> bool:
        """Write down a paid reply and its place; what is there already stays as it is.

        Returns:
            Whether the reply is a new one; else the request had been paid before.
        """


class EpisodeLog(Protocol):
    """Where episodes are written down, and found again. Each method returns once that is done."""

    async def turns(self, task_id: str, attempt: int, purpose: str = ACT) -> Sequence[Turn]:
        """Recorded turns of an attempt, in order."""

    async def end(self, ending: AttemptResult) -> bool:
        """Write down how an attempt ended.

        Returns:
            False where that attempt, or the whole task, had ended before: nothing is
            written then.
        """


class RolloutLog(EpisodeLog, ReplyLog, Protocol):
    """Where a collection is written down."""
