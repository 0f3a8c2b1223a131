"""Playing text environments: one chat policy, many episodes side by side.

Collection, evaluation and the oracle all take this one path.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

from dataset_builders.conversation import Message
from dataset_builders.environments import EnvironmentSpec
from dataset_builders.errors import ConfigError
from dataset_builders.rollouts.episode import Episode, Trajectory
from dataset_builders.rollouts.table import Table

_T = TypeVar("_T")

_NOTICEABLE = 0.1
"""Seconds that turns have to take for it to matter what is done meanwhile."""


class ChatPolicy(Protocol):
    """Whatever continues dialogues: a model in training, a server, a script."""

    def complete(
        self, dialogues: Sequence[Sequence[Message]], max_new_tokens: int
    ) -> Sequence[str | None]:
        """Write the next assistant turn of every dialogue.

        Args:
            dialogues: At least one dialogue, each ending in a user turn.
            max_new_tokens: Tokens a turn may have.

        Returns:
            One turn per dialogue, in their order; None where the dialogue has grown
            past what the policy can read, which ends its episode.
        """


@dataclass(frozen=True, slots=True)
class ScriptedPolicy:
    """A policy that says fixed turns, whatever the dialogue; for tests and baselines.

    Attributes:
        replies: Turns of an episode, said in order and then from the start again; which
            one is due is counted in the dialogue, so episodes do not disturb each other.
    """

    replies: Sequence[str | None]

    def complete(
        self, dialogues: Sequence[Sequence[Message]], max_new_tokens: int
    ) -> Sequence[str | None]:
        """Return the turn that is due in every dialogue."""
        del max_new_tokens
        # Trained turns are the policy's own; the opening's assistant turns are not.
        said = (sum(message.trained for message in dialogue) for dialogue in dialogues)
        return [self.replies[count % len(self.replies)] for count in said]


_Respond = Callable[[Sequence[_T]], Sequence[str | None]]


def _run(
    table: Table[_T],
    task_ids: Iterable[str],
    respond: _Respond[_T],
    batch_size: int,
    on_progress: Callable[[Trajectory], None] | None,
    name: str,
) -> list[Trajectory]:
    if batch_size < 1:
        raise ConfigError(f"batch_size: found {batch_size}, expected at least 1")
    waiting = [Episode(index, task_id) for index, task_id in enumerate(task_ids)]
    waiting.reverse()
    results: dict[int, Trajectory] = {}
    patience = math.inf
    try:
        while waiting or table.active:
            while waiting and len(table.active) < batch_size:
                table.seat(waiting.pop())
            table.settle(patience)
            if over := table.over():
                for episode in over:
                    table.leave(episode)
                    trajectory = results[episode.index] = episode.trajectory(name)
                    if on_progress is not None:
                        on_progress(trajectory)
                continue  # They are replaced before the others go on.
            playing = [episode for episode in table.active if episode in table.ready]
            begun = time.monotonic()
            replies = respond([cast(_T, table.ready[episode]) for episode in playing])
            patience = _patience(begun, time.monotonic())
            for episode, reply in zip(playing, replies, strict=True):
                table.act(episode, reply)
    finally:
        table.close()
    return [results[index] for index in sorted(results)]


def _patience(begun: float, ended: float) -> float:
    """Until when all environments are waited for after turns that took that long.

    As long as they take no longer than the turns did, waiting is never the slower way:
    turns of half the episodes may take as long as turns of all.
    """
    taken = ended - begun
    return ended + taken if taken >= _NOTICEABLE else math.inf


def play(
    environment: EnvironmentSpec,
    task_ids: Iterable[str],
    policy: ChatPolicy,
    *,
    batch_size: int = 16,
    on_progress: Callable[[Trajectory], None] | None = None,
) -> list[Trajectory]:
    """Let a policy play tasks.

    Episodes run in lockstep: one call of the policy continues all of them, and a
    finished one is replaced at once by the next task. Environments that are not `inline`
    work beside each other, each in a thread of its own. Where they take longer than the
    policy did, it goes on with at least half of the episodes while the others' still work.
    A policy whose turns depend on the dialogue alone thus brings the same trajectories
    always.

    Args:
        environment: The environment; up to `batch_size` objects are made of it, and all
            are closed in the end.
        task_ids: The tasks.
        policy: What acts.
        batch_size: Episodes in play at a time.
        on_progress: Called with every trajectory, as soon as it is finished, from the
            thread that called this.

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

    def respond(dialogues: Sequence[Sequence[Message]]) -> Sequence[str | None]:
        turns = policy.complete(dialogues, environment.max_new_tokens)
        if len(turns) != len(dialogues):
            raise ValueError(f"policy: {len(turns)} turns for {len(dialogues)} dialogues")
        return turns

    table = Table(environment, Episode.shown)
    return _run(table, task_ids, respond, batch_size, on_progress, environment.name)


def play_oracle(
    environment: EnvironmentSpec,
    task_ids: Iterable[str],
    *,
    batch_size: int = 16,
    on_progress: Callable[[Trajectory], None] | None = None,
) -> list[Trajectory]:
    """Let the environment's own oracle play tasks, through the path that `play` takes.

    Arguments, result and errors are those of `play`, without a policy.
    """
    table = Table(environment, Episode.oracle_turn)
    return _run(table, task_ids, lambda turns: turns, batch_size, on_progress, environment.name)
