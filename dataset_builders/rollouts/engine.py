"""Many episodes at once, on one event loop.

The engine knows a ledger and nothing of databases, terminals or output: a worker of a
cluster runs the same one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace

from dataset_builders.endpoints.client import EndpointClient
from dataset_builders.endpoints.concurrency import AdaptiveLimit
from dataset_builders.endpoints.endpoint import Endpoint
from dataset_builders.endpoints.errors import OF_ENDPOINT, EpisodeEndedError, UnprovenError
from dataset_builders.endpoints.pricing import PriceTable
from dataset_builders.endpoints.reply import CONTEXT_FULL
from dataset_builders.endpoints.requests import Sampling
from dataset_builders.environments import EnvironmentSpec
from dataset_builders.environments.prompts import Prompt
from dataset_builders.errors import AgentTuningError, EndpointError
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.ledger import AttemptResult, RolloutLog
from dataset_builders.rollouts.limits import Limits
from dataset_builders.rollouts.parking import Parked, Parking
from dataset_builders.rollouts.playing import (
    UNFINISHED,
    ModelPlayer,
    OraclePlayer,
    Player,
    play_episode,
)
from dataset_builders.rollouts.recorded_client import RecordedClient
from dataset_builders.rollouts.seats import Seats

Finish = Callable[[RecordedClient, Trajectory], Awaitable[Trajectory]]
"""What is done to a trajectory that earned its reward, such as adding thoughts."""


class SuspendedError(Exception):
    """No request may be sent any more; what is in play goes on another day."""


@dataclass(frozen=True, slots=True)
class RolloutConfig:
    """What is played, and how; a value that another machine can be handed.

    Attributes:
        environment: The environment.
        endpoint: The model; the environment's oracle plays if None.
        sampling: How the model writes.
        limits: What an episode may take.
        attempts: Attempts at a task; the first that earns `min_reward` is the last.
        min_reward: In [0, 1].
        max_concurrency: Most episodes in play.
        prices: What requests cost.
        counts_tokens: Whether some limit needs to know what requests take.
        proven: Whether the endpoint has answered in an earlier session, with these settings.
    """

    environment: EnvironmentSpec
    endpoint: Endpoint | None = None
    sampling: Sampling = field(default_factory=Sampling)
    limits: Limits = field(default_factory=Limits)
    attempts: int = 1
    min_reward: float = 1.0
    max_concurrency: int = 64
    prices: PriceTable = field(default_factory=PriceTable)
    counts_tokens: bool = False
    proven: bool = False


class RolloutEngine:
    """Plays tasks until they end, are drained or suspended.

    Args:
        play: What, and how.
        ledger: Where everything is written down.
        finish: Applied to a trajectory that earned its reward, before it is written down.
        wording: The environment's prompt, where it has been read already.

    Attributes:
        limit: How many requests may be in flight.
        in_play: Episodes in play.
        stopped: Why no further tasks were begun, or "".
    """

    def __init__(
        self,
        play: RolloutConfig,
        ledger: RolloutLog,
        finish: Finish | None = None,
        wording: Prompt | None = None,
    ) -> None:
        self.limit = AdaptiveLimit(
            play.max_concurrency, on_change=self._look, wanted=lambda: self.in_play
        )
        self.in_play = 0
        self.stopped = ""
        self._play = play
        self._ledger = ledger
        self._finish = finish
        self._wording = wording
        self._suspended = False
        self._parking = Parking()
        self._room = asyncio.Event()
        self._client: RecordedClient | None = None
        self._seats: Seats | None = None

    @property
    def retries(self) -> Mapping[str, int]:
        """Failed requests that were sent again, by class."""
        return self._client.transport.retries if self._client else {}

    def drain(self, reason: str) -> None:
        """Begin no further tasks; episodes in play go on to their end."""
        self.stopped = self.stopped or reason
        self._look()

    def suspend(self, reason: str) -> None:
        """Send no further requests; episodes in play stay open and are taken up again."""
        self._suspended = True
        self.drain(reason)

    async def run(self, tasks: Iterable[tuple[str, int]]) -> None:
        """Play tasks.

        Args:
            tasks: Identifiers, each with the number of its next attempt.

        Raises:
            EndpointError: The endpoint refuses or is down. Tasks in play stay open.
            AgentTuningError: What else the user has to mend.
        """
        spec = self._play.environment
        async with AsyncExitStack() as stack:
            self._seats = Seats(spec, self._wording or spec.wording())
            stack.push_async_callback(self._seats.close)
            if self._play.endpoint is not None:
                self._client = self._connect(self._play.endpoint)
                stack.push_async_callback(self._client.transport.close)
            try:
                player = self._player()
                await self._play_all(tasks, player)
                await self._play_parked(player)
            except* AgentTuningError as errors:
                # One is enough: it would break every episode alike.
                raise _first(errors) from None

    def _connect(self, endpoint: Endpoint) -> RecordedClient:
        play = self._play
        transport = EndpointClient(
            endpoint, self.limit, prices=play.prices, may_send=self._may_send, parks=True
        )
        return RecordedClient(transport, play.sampling, self._ledger, must_count=play.counts_tokens)

    def _player(self) -> Player:
        if self._client is None:
            return OraclePlayer()
        return ModelPlayer(self._client, self._play.environment.max_new_tokens)

    async def _play_all(self, tasks: Iterable[tuple[str, int]], player: Player) -> None:
        async with asyncio.TaskGroup() as group:
            for task_id, attempt in tasks:
                # As many episodes as requests may be in flight: environments cost, too.
                while not self.stopped and self.in_play >= self._most():
                    self._room.clear()
                    await self._room.wait()
                if self.stopped:
                    return
                self.in_play += 1
                group.create_task(self._task(task_id, attempt, player))

    def _most(self) -> int:
        return self._play.max_concurrency if self._client is None else self.limit.limit

    async def _task(self, task_id: str, attempt: int, player: Player) -> None:
        try:
            while not await self._attempt(task_id, attempt, player) and not self.stopped:
                attempt += 1
        except SuspendedError:
            pass
        except UnprovenError as error:
            self._parking.add(Parked(task_id, attempt, error, self._answers()))
        finally:
            self.in_play -= 1
            self._look()

    def _answers(self) -> int:
        return self._client.transport.answers if self._client else 0

    async def _play_parked(self, player: Player) -> None:
        """Play tasks set aside once more, one by one: by now others may have been answered."""
        for parked in self._parking.take():
            if self.stopped or self._client is None:
                return
            self._client.transport.proven = self._play.proven
            self._client.transport.again = parked.answers
            attempt = parked.attempt
            try:
                while not await self._attempt(parked.task_id, attempt, player):
                    if self.stopped:
                        return
                    attempt += 1
            except SuspendedError:
                return
            except UnprovenError as error:
                raise EndpointError(f"{error} (task {parked.task_id}, which stays open)") from error

    async def _attempt(self, task_id: str, attempt: int, player: Player) -> bool:
        """Play an attempt; returns whether the task has ended with it."""
        ending = await self._played(task_id, attempt, player)
        trajectory = ending.trajectory
        if self._doubtful(trajectory):
            raise UnprovenError(f"{self._play.endpoint}: {trajectory.error}")
        over = trajectory.exit_reason not in UNFINISHED
        earned = over and trajectory.reward >= self._play.min_reward
        if earned and self._finish is not None and self._client is not None:
            # One that cannot be finished stays as it was played.
            with suppress(EpisodeEndedError):
                trajectory = await self._finish(self._client, trajectory)
        final = earned or attempt + 1 >= self._play.attempts
        await self._ledger.end(replace(ending, trajectory=trajectory, final=final))
        return final

    def _doubtful(self, trajectory: Trajectory) -> bool:
        """Whether the endpoint refused a task's first request, and has answered none so far."""
        client = self._client.transport if self._client else None
        if client is None or client.proven or client.answers or trajectory.num_rounds:
            return False
        return trajectory.exit_reason in OF_ENDPOINT | {CONTEXT_FULL}

    async def _played(self, task_id: str, attempt: int, player: Player) -> AttemptResult:
        assert self._seats is not None
        seat, sound = self._seats.take(), False
        try:
            ending = await play_episode(
                task_id,
                attempt,
                seat=seat,
                player=player,
                ledger=self._ledger,
                limits=self._play.limits,
                environment=self._play.environment.name,
            )
            # Else the environment is still in the middle of it.
            sound = ending.trajectory.exit_reason not in UNFINISHED | {CONTEXT_FULL}
            return ending
        finally:
            await self._seats.give(seat, sound=sound)

    def _may_send(self) -> None:
        if self._suspended:
            raise SuspendedError

    def _look(self) -> None:
        self._room.set()


def _first(group: BaseExceptionGroup[AgentTuningError]) -> AgentTuningError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
