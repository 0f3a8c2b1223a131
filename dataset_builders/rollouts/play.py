"""Synchronous interface to the rollout engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dataset_builders.environments import EnvironmentSpec
from dataset_builders.errors import ConfigError
from dataset_builders.rollouts.engine import RolloutEngine
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.ledger import ACT, AttemptResult, Turn
from dataset_builders.rollouts.limits import Limits
from dataset_builders.rollouts.policy import Policy
from dataset_builders.rollouts.threads import in_caller_thread, run_in_thread


def play(
    environment: EnvironmentSpec,
    task_ids: Iterable[str],
    policy: Policy,
    *,
    batch_size: int = 16,
    in_flight_limit: Callable[[], int] | None = None,
    on_progress: Callable[[Trajectory], None] | None = None,
    limits: Limits | None = None,
    marks_state: bool = False,
) -> list[Trajectory]:
    """Let a policy play tasks, each once.

    Args:
        environment: The environment; up to `batch_size` objects are made of it, and all
            are closed in the end.
        task_ids: The tasks.
        policy: The acting policy. If its turns depend only on the dialogue, trajectories do not
            depend on timing.
        batch_size: Maximum concurrent episodes.
        in_flight_limit: Returns how many of them a server currently sustains; `batch_size` by
            default.
        on_progress: Called with every trajectory as soon as it is finished, in the thread
            that called this.
        limits: Limits of each episode beside the environment's own; one that reaches a limit has
            reward 0.
        marks_state: Whether trajectories record which turns change the world.

    Returns:
        One trajectory per task, in the order of `task_ids`. An exception of the
        environment ends only its own episode, with exit reason "environment_error" and
        reward 0.

    Raises:
        ConfigError: A task is unknown, or the batch size is less than 1.
        MissingExtraError: The environment needs an optional dependency.
        ValueError: The policy returned another number of turns than of dialogues.
        Exception: Whatever else the policy or `on_progress` raises.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size: found {batch_size}, expected at least 1")
    log = _TrajectoryLog(on_progress)

    def most() -> int:
        return min(batch_size, max(1, in_flight_limit())) if in_flight_limit else batch_size

    async def run() -> None:
        engine = RolloutEngine(
            environment, log, policy, most=most, limits=limits, marks_state=marks_state
        )
        await engine.run((task_id, 0) for task_id in task_ids)

    run_in_thread(run)
    return [log.trajectories[index] for index in sorted(log.trajectories)]


class _TrajectoryLog:
    """Passes trajectories to the caller; there is nothing to resume from."""

    def __init__(self, on_progress: Callable[[Trajectory], None] | None) -> None:
        self.trajectories: dict[int, Trajectory] = {}
        self._on_progress = on_progress

    async def turns(self, task_id: str, attempt: int, purpose: str = ACT) -> Sequence[Turn]:
        """See `EpisodeLog.turns`."""
        return ()

    async def end(self, ending: AttemptResult) -> bool:
        """See `EpisodeLog.end`."""
        self.trajectories[ending.index] = ending.trajectory
        if self._on_progress is not None:
            await in_caller_thread(self._on_progress, ending.trajectory)
        return True
