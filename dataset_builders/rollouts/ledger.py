"""Interface of the rollout log, which stores replies and episodes durably.

A collection depends only on `RolloutLog`: on one machine that is the SQLite log itself, on a
cluster a proxy that forwards everything to the driver's.
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
    """A recorded reply and its place in the run.

    Attributes:
        task_id: The task.
        attempt: Attempt at the task, from 0.
        round: Turn within the attempt, from 0.
        purpose: "act", or another purpose of the request, such as "thought".
        shown: What the turn answers; see `answered.answered_text`.
        key: Key of the request; see `requests.request_key`.
        reply: The model's reply.
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
    """Token usage and cost of an attempt or a run.

    Attributes:
        prompt_tokens: Prompt tokens.
        completion_tokens: Completion tokens.
        cost: In the price table's currency; None if a price is unknown.
        requests: Number of paid replies.
        cached_tokens: Cached prompt tokens; included in `prompt_tokens`.
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
        """Prompt and completion tokens."""
        return self.prompt_tokens + self.completion_tokens

    def plus(self, reply: Reply) -> Usage:
        """Return the usage with one more reply."""
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
    """Result of an attempt.

    Attributes:
        trajectory: The trajectory.
        attempt: Attempt at the task, from 0.
        final: Whether the task ends with it; otherwise another attempt follows.
        spent: Usage of the attempt, including replies of earlier sessions.
        index: Number of the episode, in the order in which the session began them.
    """

    trajectory: Trajectory
    attempt: int
    final: bool
    spent: Usage = Usage()
    index: int = 0


class ReplyLog(Protocol):
    """Stores paid replies; each method returns once the write is durable."""

    async def reply(self, key: str) -> Reply | None:
        """Return the stored reply to a request, or None."""

    async def record(self, turn: Turn) -> bool:
        """Store a paid reply and its turn; existing entries are not changed.

        Returns:
            Whether the reply is new; otherwise the request had been paid before.
        """


class EpisodeLog(Protocol):
    """Stores and restores episodes; each method returns once this is done."""

    async def turns(self, task_id: str, attempt: int, purpose: str = ACT) -> Sequence[Turn]:
        """Return the recorded turns of an attempt, in order."""

    async def end(self, ending: AttemptResult) -> bool:
        """Store the result of an attempt.

        Returns:
            False if that attempt, or the whole task, had ended before; nothing is then written.
        """


class RolloutLog(EpisodeLog, ReplyLog, Protocol):
    """Log of a collection: replies and episodes."""
