"""Replay the beginning of a failed episode, then play another continuation."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dataset_builders.endpoints.errors import EpisodeEndedError
from dataset_builders.endpoints.reply import Reply, reply_of
from dataset_builders.recovery.episodes import RecordedEpisode
from dataset_builders.rollouts.answered import answered_text
from dataset_builders.rollouts.playing import REPLAY_DIVERGED, agree
from dataset_builders.rollouts.policy import Policy, TurnRequest

KEPT, ORACLE = "kept", "oracle"

CONTINUATION_DIVERGED = "continuation_diverged"
"""Exit reason: the actions of the successful episode were answered by something else."""

CONTINUATION_ENDED = "continuation_ended"
"""Exit reason: the successful episode has no further turn, and the task is not over."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """Continuation after the failed turns: recorded actions or the oracle.

    Attributes:
        good: A successful episode of the same task; None for the environment's oracle.
        start: Its first turn that is played.
    """

    good: RecordedEpisode | None = None
    start: int = 0

    @property
    def name(self) -> str:
        """`kept` or `oracle`."""
        return ORACLE if self.good is None else KEPT


@dataclass(slots=True)
class Splice:
    """A try: the first turns of a failed episode and a continuation.

    Attributes:
        failed: The failed episode.
        turns: Number of its turns that are replayed, at least 1.
        continuation: What takes over.
        diverged_at: Turn before which the world showed something else than recorded; None if it
            did not.
        other_numbers: Whether the world differed in numbers, such as times and process ids.
    """

    failed: RecordedEpisode
    turns: int
    continuation: Continuation
    diverged_at: int | None = None
    other_numbers: bool = False

    async def next_turn(self, request: TurnRequest) -> Reply:
        """Return the recorded turn, or the continuation's.

        Raises:
            EpisodeEndedError: The world answered something else than recorded, or the continuation
                has ended.
        """
        number, shown = request.round, answered_text(request.messages)
        if number <= self.turns:
            self._compare(number, shown)
        if number < self.turns:
            return self.failed.replies[number]
        good = self.continuation.good
        if good is None:
            return replace(reply_of(await request.oracle()), cost=0.0)
        turn = self.continuation.start + number - self.turns
        if turn >= good.rounds:
            raise EpisodeEndedError(CONTINUATION_ENDED)
        # A thought of the successful episode must be about what is shown here. Its first turn here
        # answers the failed one instead.
        if number > self.turns and not agree(good.before(turn), shown):
            raise EpisodeEndedError(CONTINUATION_DIVERGED)
        return good.replies[turn]

    def _compare(self, number: int, shown: str) -> None:
        recorded = self.failed.before(number)
        if not agree(recorded, shown):
            self.diverged_at = number
            raise EpisodeEndedError(REPLAY_DIVERGED)
        self.other_numbers = self.other_numbers or recorded != shown


class SplicePolicy(Policy):
    """Plays splices, each in the episode of its number.

    Args:
        splices: By number of the episode.
    """

    def __init__(self, splices: Sequence[Splice]) -> None:
        self._splices = splices

    async def next_turn(self, request: TurnRequest) -> Reply:
        """See `Policy.next_turn`."""
        await asyncio.sleep(0)  # An episode that never waits would block the event loop.
        return await self._splices[request.index].next_turn(request)
