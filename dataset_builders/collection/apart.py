"""Plays episodes independently of each other, for a policy that serves concurrent callers."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import cast

from dataset_builders.collection.episode import Episode, Trajectory
from dataset_builders.collection.rollout import ChatPolicy
from dataset_builders.collection.table import Table
from dataset_builders.conversation import Message
from dataset_builders.environments import EnvironmentSpec
from dataset_builders.errors import ConfigError

_SECONDS_TO_LOOK = 0.1
"""After which it is seen whether more episodes may be in play."""
_SECONDS_TO_CLOSE = 30.0
"""For all environments together; one that takes longer is left behind."""
_SECONDS_AFTER_ERROR = 5.0
"""Likewise after an error, as others may wait for an answer that never comes."""

_News = SimpleQueue[tuple[int, Trajectory | BaseException]]


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
        most: How many may be in play now, as the policy sustains.
        on_progress: Called with every trajectory, from the thread that called this.

    Returns:
        One trajectory per task, in the order of `task_ids`; see `rollout.play`.

    Raises:
        ConfigError: A task is unknown, or the ceiling is less than 1.
        Exception: Whatever else the policy or `on_progress` raises. Episodes in play end
            with their next turn then, and their environments are closed.
    """
    if ceiling < 1:
        raise ConfigError(f"batch_size: found {ceiling}, expected at least 1")
    waiting = deque(enumerate(task_ids))
    total, results = len(waiting), dict[int, Trajectory]()
    news: _News = SimpleQueue()
    over = threading.Event()
    players: list[threading.Thread] = []
    try:
        while len(results) < total:
            # One that found no task left has ended; it is not replaced.
            while waiting and len(players) < min(ceiling, max(1, most())):
                player = _Player(environment, waiting, policy, news, over)
                players.append(threading.Thread(target=player.run, name="episode", daemon=True))
                players[-1].start()
            try:
                index, outcome = news.get(timeout=_SECONDS_TO_LOOK)
            except Empty:
                continue
            if isinstance(outcome, BaseException):
                raise outcome
            results[index] = outcome
            if on_progress is not None:
                on_progress(outcome)
    finally:
        over.set()
        _wait_for(players, _SECONDS_TO_CLOSE if len(results) == total else _SECONDS_AFTER_ERROR)
    return [results[index] for index in sorted(results)]


def _wait_for(players: Iterable[threading.Thread], seconds: float) -> None:
    """Wait until the environments are closed: the end of the process would cut that short."""
    until = time.monotonic() + seconds
    for player in players:
        player.join(max(0.0, until - time.monotonic()))


class _Player:
    """Plays one task after the other in a thread of its own, where its environment stays."""

    def __init__(
        self,
        environment: EnvironmentSpec,
        waiting: deque[tuple[int, str]],
        policy: ChatPolicy,
        news: _News,
        over: threading.Event,
    ) -> None:
        self._environment = environment
        self._waiting = waiting
        self._policy = policy
        self._news = news
        self._over = over

    def run(self) -> None:
        index = -1
        try:
            table = Table(self._environment, Episode.shown)
            try:
                while not self._over.is_set() and self._waiting:
                    try:
                        index, task_id = self._waiting.popleft()
                    except IndexError:  # Another one was faster.
                        return
                    if (played := self._play(table, Episode(index, task_id))) is not None:
                        self._news.put((index, played))
            finally:
                table.close()
        except BaseException as error:  # Raised again in the thread that waits for the news.
            self._news.put((index, error))

    def _play(self, table: Table[tuple[Message, ...]], episode: Episode) -> Trajectory | None:
        table.seat(episode)
        while True:
            table.settle(math.inf)
            if table.over():
                table.leave(episode)
                return episode.trajectory(self._environment.name)
            if self._over.is_set():
                return None
            shown = cast(tuple[Message, ...], table.ready[episode])
            turns = self._policy.complete([shown], self._environment.max_new_tokens)
            if len(turns) != 1:
                raise ValueError(f"policy: {len(turns)} turns for one dialogue")
            table.act(episode, turns[0])
