"""Playing episodes apart, each at its own pace: for a policy that answers many callers at once."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import cast

from dataset_builders.conversation import Message
from dataset_builders.environments import EnvironmentSpec
from dataset_builders.rollouts.episode import Episode, Trajectory
from dataset_builders.rollouts.rollout import ChatPolicy
from dataset_builders.rollouts.table import Table
from dataset_builders.rollouts.window import in_window


def play_apart(
    environment: EnvironmentSpec,
    task_ids: Iterable[str],
    policy: ChatPolicy,
    *,
    ceiling: int,
    most: Callable[[], int],
    on_progress: Callable[[Trajectory], None] | None = None,
) -> list[Trajectory]:
    """Let a policy play tasks, without waiting for the slowest turn of many.

    `rollout.play` asks for the turns of all episodes in one call, which is what a model in
    this process needs. A server answers each request when it is ready: here every episode
    asks for itself. The trajectories are the same where turns depend on the dialogue alone.

    Args:
        environment: The environment; an object of it is made for each episode in play, and
            used again.
        task_ids: The tasks.
        policy: What acts; called from several threads at once, with one dialogue each.
        ceiling: Most episodes in play.
        most: How many may be in play now, as far as the policy bears.
        on_progress: Called with every trajectory, from the thread that called this.

    Returns:
        One trajectory per task, in the order of `task_ids`; see `rollout.play`.

    Raises:
        ConfigError: A task is unknown, or the ceiling is less than 1.
        Exception: Whatever else the policy or `on_progress` raises. Episodes in play end
            with their next turn then, and their environments are closed.
    """
    results = dict[int, Trajectory]()

    def finished(index: int, trajectory: Trajectory) -> None:
        results[index] = trajectory
        if on_progress is not None:
            on_progress(trajectory)

    player = _Player(environment, policy)
    in_window(task_ids, player.at_table, ceiling=ceiling, most=most, finished=finished)
    return [results[index] for index in sorted(results)]


class _Player:
    """Plays one task after the other; each thread has a table, where its environment stays."""

    def __init__(self, environment: EnvironmentSpec, policy: ChatPolicy) -> None:
        self._environment = environment
        self._policy = policy

    @contextmanager
    def at_table(self, over: threading.Event) -> Iterator[Callable[[int, str], Trajectory | None]]:
        """Opens a thread's table; see `window.Worker`."""
        table = Table(self._environment, Episode.shown)
        try:
            yield lambda index, task_id: self._play(table, Episode(index, task_id), over)
        finally:
            table.close()

    def _play(
        self, table: Table[tuple[Message, ...]], episode: Episode, over: threading.Event
    ) -> Trajectory | None:
        table.seat(episode)
        while True:
            table.settle(math.inf)
            if table.over():
                table.leave(episode)
                return episode.trajectory(self._environment.name)
            if over.is_set():
                return None
            shown = cast(tuple[Message, ...], table.ready[episode])
            turns = self._policy.complete([shown], self._environment.max_new_tokens)
            if len(turns) != 1:
                raise ValueError(f"policy: {len(turns)} turns for one dialogue")
            table.act(episode, turns[0])
