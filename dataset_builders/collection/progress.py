"""Progress counters of a collection."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dataset_builders.collection.filters import TrajectoryFilter
from dataset_builders.endpoints.reply import Reply
from dataset_builders.rollouts.ledger import ACT, AttemptResult, RolloutLog, Turn, Usage


@dataclass(slots=True)
class CollectionProgress:
    """Figures shown as progress.

    Attributes:
        total: Tasks of the collection.
        sieve: Counts the tasks that have ended, and what is kept of them.
        spent: What all replies took, those of earlier sessions included.
        session: What those of this session took.
        ended: Tasks that ended in this session.
        begun: When the session began, by the monotonic clock.
        attempts: Attempts that ended, those of earlier sessions and those that were
            followed by another one included.
        asks: Whether a model is used; an oracle uses no tokens and costs nothing.
        priced: Whether the price of its tokens is known.
    """

    total: int
    sieve: TrajectoryFilter
    spent: Usage = field(default_factory=Usage)
    session: Usage = field(default_factory=Usage)
    ended: int = 0
    begun: float = field(default_factory=time.monotonic)
    attempts: int = 0
    asks: bool = True
    priced: bool = True

    @property
    def done(self) -> int:
        """Number of finished tasks."""
        return self.sieve.counts["played"]

    @property
    def kept(self) -> int:
        """Number of kept trajectories."""
        return self.sieve.counts["kept"]

    @property
    def reasons(self) -> dict[str, int]:
        """Number of dropped trajectories, by reason."""
        counts = self.sieve.counts.items()
        return {name: number for name, number in counts if name not in ("played", "kept")}

    @property
    def seconds(self) -> float:
        """Duration of the session in seconds."""
        return time.monotonic() - self.begun

    @property
    def rate(self) -> float:
        """Tasks finished per minute in this session."""
        return self.ended / max(self.seconds, 1e-9) * 60

    @property
    def cost_per_kept(self) -> float | None:
        """Cost per kept trajectory; None if the cost is unknown, or nothing is kept."""
        return self.spent.cost / self.kept if self.spent.cost is not None and self.kept else None


class WatchedLedger:
    """A rollout log that counts what passes through it.

    Args:
        ledger: The underlying log.
        tally: The counters.
        on_spent: Called after every paid reply.
    """

    def __init__(
        self,
        ledger: RolloutLog,
        tally: CollectionProgress,
        on_spent: Callable[[], None] = lambda: None,
    ) -> None:
        self._ledger = ledger
        self._tally = tally
        self._on_spent = on_spent

    async def turns(self, task_id: str, attempt: int, purpose: str = ACT) -> Sequence[Turn]:
        """See `RolloutLog.turns`."""
        return await self._ledger.turns(task_id, attempt, purpose)

    async def reply(self, key: str) -> Reply | None:
        """See `RolloutLog.reply`."""
        return await self._ledger.reply(key)

    async def record(self, turn: Turn) -> bool:
        """See `RolloutLog.record`."""
        new = await self._ledger.record(turn)
        if new:
            self._tally.spent = self._tally.spent.plus(turn.reply)
            self._tally.session = self._tally.session.plus(turn.reply)
            self._on_spent()
        return new

    async def end(self, ending: AttemptResult) -> bool:
        """See `RolloutLog.end`."""
        new = await self._ledger.end(ending)
        self._tally.attempts += new
        if new and ending.final:
            self._tally.ended += 1
            self._tally.sieve.keeps(ending.trajectory)
        return new
