"""Rollout engine for collections: adds an endpoint, attempts, limits and parked tasks.

It depends only on a log, not on databases, terminals or output, so that a cluster's worker runs the
same engine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from dataset_builders.collection.store import SqliteRolloutLog
from dataset_builders.endpoints.client import EndpointClient
from dataset_builders.endpoints.concurrency import AdaptiveLimit
from dataset_builders.endpoints.endpoint import Endpoint
from dataset_builders.endpoints.errors import OF_ENDPOINT, EpisodeEndedError, UnprovenError
from dataset_builders.endpoints.pricing import PriceTable
from dataset_builders.endpoints.reply import CONTEXT_FULL
from dataset_builders.endpoints.requests import Sampling
from dataset_builders.environments import EnvironmentSpec
from dataset_builders.environments.prompts import Prompt
from dataset_builders.errors import EndpointError
from dataset_builders.rollouts.engine import RolloutEngine
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.ledger import RolloutLog
from dataset_builders.rollouts.limits import Limits
from dataset_builders.rollouts.parking import Parked, Parking
from dataset_builders.rollouts.playing import UNFINISHED
from dataset_builders.rollouts.policy import OraclePolicy, Policy
from dataset_builders.rollouts.recorded_client import RecordedClient


class Finisher(Protocol):
    """Post-processing of a rewarded trajectory, such as adding thoughts."""

    @property
    def name(self) -> str:
        """Its name; a collection can be resumed only with the same one."""

    async def __call__(self, policy: Policy, trajectory: Trajectory) -> Trajectory:
        """Return the processed trajectory; `policy` queries the acting model.

        Raises:
            EpisodeEndedError: It cannot be processed, and stays as it was played.
        """

    def outcomes(
        self, store: SqliteRolloutLog, kept: Callable[[Trajectory], bool]
    ) -> Mapping[str, int]:
        """Return the turns of the kept trajectories of all sessions, by outcome."""


class SuspendedError(Exception):
    """No request may be sent any more; running episodes are resumed in a later session."""


@dataclass(frozen=True, slots=True)
class LocalPlayer:
    """A model in this process that plays a collection.

    Its finished episodes are stored; one in play when the process is killed is played again.

    Attributes:
        name: Name in reports; a collection is resumed only with the same one.
        policy: Writes the turns, by the collection's sampling settings.
    """

    name: str
    policy: Policy


@dataclass(frozen=True, slots=True)
class RolloutConfig:
    """What is played, and how; a picklable value unless a local model plays.

    Attributes:
        environment: The environment.
        endpoint: The model; without one and without `local` the environment's oracle plays.
        sampling: Sampling settings.
        limits: Limits of an episode.
        attempts: Maximum attempts per task; the first that reaches `min_reward` is the last.
        min_reward: In [0, 1].
        max_concurrency: Maximum concurrent episodes.
        prices: Prices of requests.
        counts_tokens: Whether a limit needs the requests' token usage.
        proven: Whether the endpoint has answered in an earlier session, with these settings.
        local: A model in this process, in place of an endpoint.
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
    local: LocalPlayer | None = None

    @property
    def plays_oracle(self) -> bool:
        """Whether the environment's oracle plays, not a model."""
        return self.endpoint is None and self.local is None


class CollectionEngine(RolloutEngine):
    """Plays tasks until they end, are drained or suspended.

    Args:
        play: What is played, and how.
        ledger: Log of all results.
        finish: Applied to a rewarded trajectory, before it is recorded.
        wording: The environment's prompt template, if it has been read already.
        answers: Number of the run's requests that the endpoint has answered so far.

    Attributes:
        limit: Limit of concurrent requests.
    """

    def __init__(
        self,
        play: RolloutConfig,
        ledger: RolloutLog,
        finish: Finisher | None = None,
        wording: Prompt | None = None,
        answers: int = 0,
    ) -> None:
        environment = play.environment
        super().__init__(
            environment,
            ledger,
            play.local.policy if play.local else OraclePolicy(),
            most=self._endpoint_most,
            limits=play.limits,
            wording=wording,
            marks_state=True,
        )
        self.limit = AdaptiveLimit(
            play.max_concurrency, on_change=self._changed, wanted=lambda: self.in_play
        )
        self._play = play
        self._ledger = ledger
        self._finish = finish
        self._answers = answers
        self._suspended = False
        self._parking = Parking()
        self._in_processes = environment.isolation(environment.world()) == "process"
        self._transport: EndpointClient | None = None

    @property
    def retries(self) -> Mapping[str, int]:
        """Number of retried requests, by failure class."""
        return self._transport.retries if self._transport else {}

    def suspend(self, reason: str) -> None:
        """Send no further requests; running episodes stay open and are resumed later."""
        self._suspended = True
        self.drain(reason)

    async def run(self, tasks: Iterable[tuple[str, int]]) -> None:
        """Play tasks; see `RolloutEngine.run`."""
        play = self._play
        async with AsyncExitStack() as stack:
            if play.endpoint is not None:
                self._transport = await stack.enter_async_context(
                    EndpointClient(
                        play.endpoint,
                        self.limit,
                        prices=play.prices,
                        may_send=self._may_send,
                        parks=True,
                    )
                )
                self._transport.answers = self._answers
                self._policy = RecordedClient(
                    self._transport, play.sampling, self._ledger, must_count=play.counts_tokens
                )
            await super().run(tasks)

    async def _play_all(self, tasks: Iterable[tuple[str, int]]) -> None:
        await super()._play_all(tasks)
        await self._play_parked()

    def _endpoint_most(self) -> int:
        if self._transport is not None:
            return self.limit.limit
        most = self._play.max_concurrency
        # An oracle never waits: more processes than cores only take longer to start.
        all_cores = self._in_processes and self._play.plays_oracle
        return min(most, os.cpu_count() or 1) if all_cores else most

    async def _play_task(self, task_id: str, attempt: int, index: int) -> None:
        try:
            while not await self._attempt(task_id, attempt) and not self.stopped:
                attempt += 1
        except SuspendedError:
            pass
        except UnprovenError as error:
            answers = self._transport.answers if self._transport else 0
            await self._park(Parked(task_id, attempt, error, answers))

    async def _park(self, task: Parked) -> None:
        self._parking.add(task)

    async def _play_parked(self) -> None:
        """Retry parked tasks one by one: others may have been answered by now."""
        for parked in self._parking.take():
            if self.stopped or self._transport is None:
                return
            self._transport.proven = self._play.proven
            self._transport.again = parked.answers
            attempt = parked.attempt
            try:
                while not await self._attempt(parked.task_id, attempt):
                    if self.stopped:
                        return
                    attempt += 1
            except SuspendedError:
                return
            except UnprovenError as error:
                raise EndpointError(f"{error} (task {parked.task_id}, which stays open)") from error

    async def _attempt(self, task_id: str, attempt: int) -> bool:
        """Play an attempt; return whether it ended the task."""
        ending = await self._played(task_id, attempt)
        trajectory = ending.trajectory
        if self._doubtful(trajectory):
            raise UnprovenError(f"{self._play.endpoint}: {trajectory.error}")
        over = trajectory.exit_reason not in UNFINISHED
        earned = over and trajectory.reward >= self._play.min_reward
        if earned and self._finish is not None and self._transport is not None:
            # One that cannot be processed stays as it was played.
            with suppress(EpisodeEndedError):
                trajectory = await self._finish(self._policy, trajectory)
        final = earned or attempt + 1 >= self._play.attempts
        await self._log.end(replace(ending, trajectory=trajectory, final=final))
        return final

    def _doubtful(self, trajectory: Trajectory) -> bool:
        """Whether the endpoint rejected a task's first request, and has answered none so far."""
        transport = self._transport
        if transport is None or transport.proven or transport.answers or trajectory.num_rounds:
            return False
        return trajectory.exit_reason in OF_ENDPOINT | {CONTEXT_FULL}

    def _may_send(self) -> None:
        if self._suspended:
            raise SuspendedError
