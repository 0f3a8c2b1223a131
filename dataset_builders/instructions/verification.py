"""Verify that a task is sound by playing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dataset_builders.environments import EnvironmentSpec
from dataset_builders.environments.base import OracleStep
from dataset_builders.errors import DataError
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy, ScriptedPolicy

SOLUTION_FAILS = "solution_fails"
NOT_DETERMINISTIC = "not_deterministic"
IDLE_PASSES = "idle_passes"
BROKEN = "environment_error"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of playing a task.

    Attributes:
        reason: What is wrong with it, or "".
        detail: Details, in one line.
        solution: The solution's trajectory; None if it could not be played.
    """

    reason: str
    detail: str = ""
    solution: Trajectory | None = None


def verify(
    environment: EnvironmentSpec, task_id: str, idlers: Sequence[Sequence[str]] = ()
) -> Verdict:
    """Play a task's own solution twice, and idle agents.

    Args:
        environment: Environment with the task.
        task_id: The task.
        idlers: Actions of agents, in addition to the environment's idle one, that must not pass.

    Returns:
        Sound, or `BROKEN` (the environment could not run it), `SOLUTION_FAILS`,
        `NOT_DETERMINISTIC` (the second run gave another observation or score)
        or `IDLE_PASSES`.
    """
    first, second = (_solve(environment, task_id) for _ in range(2))
    if error := first.error or second.error:
        # An environment's error about a record is the record's fault.
        fault = error.startswith(f"{DataError.__name__}: ")
        return Verdict(SOLUTION_FAILS if fault else BROKEN, error, first)
    if not first.success:
        return Verdict(SOLUTION_FAILS, first.exit_reason, first)
    if (first.messages, first.reward) != (second.messages, second.reward):
        return Verdict(NOT_DETERMINISTIC, "", first)
    for turns in _idle_turns(environment, idlers):
        if play(environment, [task_id], ScriptedPolicy(turns), batch_size=1)[0].success:
            return Verdict(IDLE_PASSES, turns[0], first)
    return Verdict("", "", first)


def _solve(environment: EnvironmentSpec, task_id: str) -> Trajectory:
    return play(environment, [task_id], OraclePolicy(), batch_size=1)[0]


def _idle_turns(environment: EnvironmentSpec, idlers: Sequence[Sequence[str]]) -> list[list[str]]:
    dialogue = environment.make()
    try:
        every = [[dialogue.world.idle_action], *idlers]
        return [
            [dialogue.write(OracleStep("I do nothing.", act)) for act in acts] for acts in every
        ]
    finally:
        dialogue.close()
