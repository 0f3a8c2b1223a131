"""Collection engine on the machines of a Ray cluster.

Only the driver writes the log. Workers play chunks of tasks with the
engine that one machine uses, with a log that forwards every call to the driver: a paid reply is
durable there before it is used. If a worker is lost, its unfinished tasks are given to others,
which reuse the recorded replies. Late results of a lost worker are rejected by the log, so every
task ends exactly once.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from dataset_builders.collection.engine import CollectionEngine, Finisher, RolloutConfig
from dataset_builders.collection.ray_cluster import Cluster, connected, line_of, post_box
from dataset_builders.collection.ray_mailbox import DRAIN, PARK, SUSPEND
from dataset_builders.collection.ray_worker import play_chunk
from dataset_builders.endpoints.concurrency import AdaptiveLimit
from dataset_builders.environments.prompts import Prompt
from dataset_builders.errors import AgentTuningError, ClusterError
from dataset_builders.rollouts.episode import ENVIRONMENT_ERROR, Trajectory
from dataset_builders.rollouts.ledger import AttemptResult, RolloutLog
from dataset_builders.rollouts.parking import Parked

MAX_LOSSES = 3
"""Number of workers that a task may lose alone before it ends as "environment_error"."""

_ROUNDS = 4  # Chunks per worker: few enough for low overhead, enough for load balancing.
_MOST_AT_ONCE = 8  # Chunks hold at most this many times the tasks in play: little is lost.


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Tasks that one worker plays.

    Attributes:
        tasks: Their identifiers.
        losses: Number of workers that were lost with them.
        parked: The one task, if it was parked before.
    """

    tasks: tuple[str, ...]
    losses: int = 0
    parked: Parked | None = None


class RayEngine(CollectionEngine):
    """Plays tasks on a Ray cluster, with the interface of `CollectionEngine`.

    `max_concurrency` is divided among the workers, each of which adapts its part to the
    endpoint. Machines need this package, the environment's data under the same path, and
    the variable that holds the endpoint's key: none of them is sent.

    Args:
        play: What, and how.
        ledger: Where everything is written down, by this process.
        finish: Applied to a trajectory that earned its reward, by the worker.
        wording: The environment's prompt, where it has been read already.
        cluster: Which cluster.

    Attributes:
        lost: Workers that were lost.
    """

    def __init__(
        self,
        play: RolloutConfig,
        ledger: RolloutLog,
        finish: Finisher | None = None,
        wording: Prompt | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        super().__init__(play, ledger, finish, wording)
        self.limit = AdaptiveLimit(play.max_concurrency, start=play.max_concurrency)
        self.lost = 0
        self._cluster = cluster or Cluster()
        self._resent: Counter[str] = Counter()
        self._attempts: dict[str, int] = {}
        self._queue: deque[_Chunk] = deque()
        self._running: dict[asyncio.Task[Any], tuple[_Chunk, Any]] = {}
        self._parked: dict[str, Parked] = {}
        self._mailbox: Any = None

    @property
    def retries(self) -> Mapping[str, int]:
        """Number of retried requests in finished chunks, by failure class."""
        return self._resent

    def drain(self, reason: str) -> None:
        """Start no further tasks; running episodes continue to their end."""
        super().drain(reason)
        self._tell(DRAIN, reason)

    def suspend(self, reason: str) -> None:
        """Send no further requests; running episodes stay open and are resumed later."""
        super().suspend(reason)
        self._tell(SUSPEND, reason)

    async def run(self, tasks: Iterable[tuple[str, int]]) -> None:
        """Play tasks.

        Args:
            tasks: Identifiers, each with the number of its next attempt.

        Raises:
            MissingExtraError: Ray is not installed.
            ClusterError: The cluster cannot be reached, has no core, or is lost.
            EndpointError: The endpoint refuses or is down. Tasks in play stay open.
            AgentTuningError: Any other error that the user has to fix.
        """
        self._attempts = dict(tasks)
        if not self._attempts or self.stopped:
            return
        wording = self._wording or self._play.environment.wording()
        with connected(self._cluster) as ray:
            self._mailbox = post_box(ray)
            serving = asyncio.create_task(self._serve())
            try:
                await self._play_chunks(ray, wording, serving)
            except ray.exceptions.RayError as error:
                raise ClusterError(f"the Ray cluster is lost: {line_of(error)}") from error
            finally:
                serving.cancel()
                errors = asyncio.CancelledError, ray.exceptions.RayError, AgentTuningError
                with suppress(*errors):
                    await serving
                mailbox, self._mailbox = self._mailbox, None
                ray.kill(mailbox)

    def _tell(self, order: int, reason: str) -> None:
        if self._mailbox is not None:
            self._mailbox.tell.remote(order, reason)

    async def _serve(self) -> None:
        """Execute the calls of the workers' logs, until cancelled."""
        while True:
            answers = []
            for number, method, arguments in await self._mailbox.take.remote():
                if method == PARK:
                    await self._park(*arguments)
                    answers.append((number, True))
                    continue
                answer = await getattr(self._ledger, method)(*arguments)
                answers.append((number, answer))
                if method == "end":
                    self._ended(*arguments)
                if method == "record":
                    self._answers += answer
            self._mailbox.give.remote(answers)
            self._count()

    async def _park(self, task: Parked) -> None:
        # Its worker knows the answers of its own chunk only.
        task = replace(task, answers=self._answers)
        self._parked[task.task_id] = task
        await super()._park(task)

    def _ended(self, ending: AttemptResult) -> None:
        task_id = ending.trajectory.task_id
        if ending.final:
            self._attempts.pop(task_id, None)
        elif task_id in self._attempts:
            self._attempts[task_id] = ending.attempt + 1

    async def _play_chunks(self, ray: Any, wording: Prompt, serving: asyncio.Task[None]) -> None:
        workers = self._workers(ray)
        self._queue = _cut(tuple(self._attempts), workers, self._play.max_concurrency)
        running = self._running
        try:
            while running or (self._look_at_parked() and not self.stopped):
                # The number of machines changes.
                workers = max(1, self._workers(ray, required=False))
                while self._queue and not self.stopped and len(running) < workers:
                    chunk = self._queue.popleft()
                    reference = self._submit(ray, chunk, wording, workers)
                    running[asyncio.create_task(_result(reference))] = chunk, reference
                self._count()
                done, _ = await asyncio.wait(
                    {serving, *running}, return_when=asyncio.FIRST_COMPLETED
                )
                if serving in done:
                    serving.result()
                for each in done - {serving}:
                    chunk, _ = running.pop(each)
                    await self._take_back(ray, chunk, each)
        finally:
            self.in_play = 0
            for each, (_, reference) in running.items():
                each.cancel()
                ray.cancel(reference, force=True)
            await asyncio.gather(*running, return_exceptions=True)
            running.clear()

    def _look_at_parked(self) -> bool:
        """Queue a parked task where nothing else is left; returns whether anything is queued."""
        if not self._queue and self._parked:
            task = self._parked.pop(next(iter(self._parked)))
            self._queue.append(_Chunk((task.task_id,), parked=task))
        return bool(self._queue)

    def _workers(self, ray: Any, *, required: bool = True) -> int:
        cores = ray.cluster_resources().get("CPU", 0.0)
        workers = int(cores / self._cluster.cpus)
        if required and not workers:
            raise ClusterError(
                f"the Ray cluster has {cores:g} cores, expected at least {self._cluster.cpus:g}"
            )
        return workers

    def _submit(self, ray: Any, chunk: _Chunk, wording: Prompt, workers: int) -> Any:
        share = math.ceil(self._play.max_concurrency / workers)
        play = replace(self._play, max_concurrency=share)
        tasks = [(each, self._attempts[each]) for each in chunk.tasks if each in self._attempts]
        # Ray would repeat a whole chunk; the driver knows which tasks have finished.
        remote = ray.remote(num_cpus=self._cluster.cpus, max_retries=0)(play_chunk)
        spread = remote.options(scheduling_strategy="SPREAD")
        return spread.remote(
            play, self._finish, wording, tasks, self._mailbox, self._answers, chunk.parked
        )

    def _count(self) -> None:
        chunks = (chunk for chunk, _ in self._running.values())
        left = sum(task in self._attempts for chunk in chunks for task in chunk.tasks)
        self.in_play = min(left, self._play.max_concurrency)

    async def _take_back(self, ray: Any, chunk: _Chunk, result: asyncio.Task[Any]) -> None:
        lost = (
            *(ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError),
            *(ray.exceptions.LocalRayletDiedError, ray.exceptions.OutOfMemoryError),
            *(ray.exceptions.ObjectLostError, ray.exceptions.RayActorError),
        )
        try:
            resent, cuts = result.result()
        except ray.exceptions.RayError as error:
            # Raised by the engine, or by Ray instead.
            cause = getattr(error, "cause", error)
            if isinstance(cause, AgentTuningError):
                raise cause from None
            if not isinstance(cause, ray.exceptions.RayError):
                raise ClusterError(f"a worker failed: {line_of(cause)}") from error
            if not isinstance(cause, lost):
                raise
            self.lost += 1
            await self._again(chunk, line_of(cause))
            return
        self._resent.update(resent)
        self.limit.cuts += cuts
        if not self.stopped:
            await self._again(chunk, "its worker left it")

    async def _again(self, chunk: _Chunk, why: str) -> None:
        """Redistribute a chunk's unfinished tasks, in halves: one task may be the cause."""
        open_tasks = self._attempts.keys() - self._parked.keys()
        left = tuple(task for task in chunk.tasks if task in open_tasks)
        losses = chunk.losses + 1 if len(chunk.tasks) == 1 else 0
        if left and losses >= MAX_LOSSES:
            await self._give_up(left[0], f"{losses} workers were lost with it, the last: {why}")
            return
        middle = (len(left) + 1) // 2
        self._queue.extend(_Chunk(part, losses) for part in (left[:middle], left[middle:]) if part)

    async def _give_up(self, task_id: str, why: str) -> None:
        trajectory = Trajectory(
            task_id=task_id,
            environment=self._play.environment.name,
            split=task_id.split("-")[1],
            messages=(),
            reward=0.0,
            exit_reason=ENVIRONMENT_ERROR,
            num_rounds=0,
            valid_rounds=0,
            error=why,
        )
        ending = AttemptResult(trajectory, self._attempts[task_id], True)
        await self._ledger.end(ending)
        self._ended(ending)


def _cut(tasks: tuple[str, ...], workers: int, max_concurrency: int) -> deque[_Chunk]:
    """Chunks of tasks: each worker gets some, and has enough of them to play at once."""
    share = math.ceil(max_concurrency / workers)
    if len(tasks) <= workers * share:
        size = math.ceil(len(tasks) / workers)
    else:
        even = math.ceil(len(tasks) / (workers * _ROUNDS))
        size = min(max(even, share), share * _MOST_AT_ONCE)
    return deque(_Chunk(tasks[at : at + size]) for at in range(0, len(tasks), size))


async def _result(reference: Any) -> Any:
    return await reference
