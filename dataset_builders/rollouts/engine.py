"""Asynchronous rollout engine: many concurrent episodes on one event loop.

Collection, evaluation with a local model or over an endpoint, and oracles all use it; they differ
only in their `Policy`. The engine does not depend on databases, terminals or output.
"""

from __future__ import annotations

from asyncio import Event, TaskGroup
from collections import deque
from collections.abc import Callable, Iterable

from dataset_builders.environments import EnvironmentSpec
from dataset_builders.environments.prompts import Prompt
from dataset_builders.errors import AgentTuningError
from dataset_builders.rollouts.episode import Episode
from dataset_builders.rollouts.ledger import AttemptResult, EpisodeLog
from dataset_builders.rollouts.limits import Limits
from dataset_builders.rollouts.playing import play_episode
from dataset_builders.rollouts.policy import Policy
from dataset_builders.rollouts.seats import Seats


class RolloutEngine:
    """Plays tasks until they end or the engine is drained.

    A finished episode is replaced at once by the next task. Environments that are not `inline` run
    concurrently, each in its own thread.

    Args:
        environment: The environment.
        log: Log of all results.
        policy: The acting policy.
        most: Returns the current maximum of concurrent episodes.
        limits: Limits of an episode.
        wording: The environment's prompt template, if it has been read already.
        marks_state: Whether trajectories record which turns change the world.

    Attributes:
        in_play: Episodes in play.
        stopped: Why no further tasks were begun, or "".
    """

    def __init__(
        self,
        environment: EnvironmentSpec,
        log: EpisodeLog,
        policy: Policy,
        *,
        most: Callable[[], int],
        limits: Limits | None = None,
        wording: Prompt | None = None,
        marks_state: bool = False,
    ) -> None:
        self.in_play = 0
        self.stopped = ""
        self._environment = environment
        self._log = log
        self._policy = policy
        self._most = most
        self._limits = limits or Limits()
        self._wording = wording
        self._marks_state = marks_state
        self._room = Event()
        self._seats: Seats | None = None
        self._waiting: deque[tuple[str, int]] = deque()
        self._begun = 0

    def drain(self, reason: str) -> None:
        """Start no further tasks; running episodes continue to their end."""
        self.stopped = self.stopped or reason
        self._changed()

    async def run(self, tasks: Iterable[tuple[str, int]]) -> None:
        """Play tasks.

        Args:
            tasks: Identifiers, each with the number of its next attempt.

        Raises:
            EndpointError: The endpoint refuses or is down. Tasks in play stay open.
            AgentTuningError: Any other error that the user has to fix.
            Exception: Whatever else the policy or the log raises.
        """
        environment = self._environment
        self._seats = Seats(environment, self._wording or environment.wording())
        try:
            await self._play_all(tasks)
        except BaseExceptionGroup as group:
            # One is enough: it would affect every episode.
            raise _first(group.subgroup(AgentTuningError) or group) from None
        finally:
            await self._seats.close()

    async def _play_all(self, tasks: Iterable[tuple[str, int]]) -> None:
        self._waiting.extend(tasks)
        async with TaskGroup() as group:
            while self._waiting and not self.stopped:
                # As many episodes as concurrent requests: environments have a cost, too.
                if self.in_play >= self._most():
                    self._room.clear()
                    await self._room.wait()
                    continue
                task_id, attempt = self._waiting.popleft()
                self.in_play += 1
                self._changed()
                group.create_task(self._task(task_id, attempt, self._begun))
                self._begun += 1

    async def _task(self, task_id: str, attempt: int, index: int) -> None:
        try:
            await self._play_task(task_id, attempt, index)
        finally:
            self.in_play -= 1
            self._changed()

    async def _play_task(self, task_id: str, attempt: int, index: int) -> None:
        """Play attempts at a task until it has ended."""
        await self._log.end(await self._played(task_id, attempt, index))

    async def _played(self, task_id: str, attempt: int, index: int = 0) -> AttemptResult:
        assert self._seats is not None
        seat = self._seats.take()
        episode = Episode(index, task_id, marks_state=self._marks_state)
        try:
            return await play_episode(
                episode,
                attempt,
                seat=seat,
                policy=self._policy,
                log=self._log,
                limits=self._limits,
                environment=self._environment,
                on_turn=self._changed,  # A server may sustain more episodes now.
            )
        finally:
            await self._seats.give(seat, sound=episode.ended_itself)

    def _changed(self) -> None:
        """Recompute the maximum of concurrent episodes, and inform the policy."""
        self._room.set()
        room = 0 if self.stopped else max(0, self._most() - self.in_play)
        self._policy.set_in_play(self.in_play + min(room, len(self._waiting)))


def _first(group: BaseException) -> BaseException:
    return _first(group.exceptions[0]) if isinstance(group, BaseExceptionGroup) else group
