"""Demonstration before the task: a solved game from AgentBench's file or played by the oracle."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from dataset_builders.conversation import Message, Role
from dataset_builders.environments.alfworld.environment import AlfworldEnvironment
from dataset_builders.environments.base import OracleStep
from dataset_builders.errors import DataError, EnvironmentFailureError, SourceNotFoundError

MAX_MOVES = 12
"""Maximum moves of a demonstration, which is part of every prompt of its kind."""

PUBLISHED_NAMES = {
    "pick_and_place_simple": "put",
    "pick_clean_then_place_in_recep": "clean",
    "pick_heat_then_place_in_recep": "heat",
    "pick_cool_then_place_in_recep": "cool",
    "look_at_obj_in_light": "examine",
    "pick_two_obj_and_place": "puttwo",
}
"""ALFWorld's task type to AgentBench's name of its demonstration."""

_ROLES = {"user": "user", "agent": "assistant", "assistant": "assistant"}


def demonstration(
    world: AlfworldEnvironment, write: Callable[[OracleStep], str]
) -> tuple[Message, ...]:
    """Return the turns of a solved game of the current game's kind, user first.

    Args:
        world: After `reset`.
        write: Formats a step as an assistant turn.

    Raises:
        SourceNotFoundError: The file of demonstrations is not there.
        DataError: It has no such demonstration, or not in AgentBench's shape.
        EnvironmentFailureError: No training game of the kind is solved in few moves.
    """
    if world.demonstrations is not None:
        return published(Path(world.demonstrations), PUBLISHED_NAMES.get(world.kind, world.kind))
    moves = _solved(world.data, world.kind)
    turns = [Message("user", moves[0][0])]
    for observation, move in moves[1:]:
        turns += [Message("assistant", write(move)), Message("user", observation)]
    return _ending_with_assistant(turns)


@lru_cache(maxsize=4)
def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise SourceNotFoundError(f"demonstrations: no file {path}") from None
    except ValueError as error:
        raise DataError(f"{path}: found no JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: found {type(content).__name__}, expected an object")
    return content


def published(path: Path, name: str) -> tuple[Message, ...]:
    """Read a demonstration of AgentBench's file: alternating texts, or objects of role and content.

    Raises:
        SourceNotFoundError: There is no such file.
        DataError: It has none of this name, or it is in another format.
    """
    turns = _read(path).get(name)
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{path}: {name}: found {type(turns).__name__}, expected a list of turns")
    messages = []
    for index, turn in enumerate(turns):
        role: Role = "assistant" if index % 2 else "user"
        if isinstance(turn, dict):
            found, turn = _ROLES.get(str(turn.get("role"))), turn.get("content")
            if found != role:
                raise DataError(f"{path}: {name}: turn {index}: found no turn of the {role}")
        if not isinstance(turn, str) or not turn:
            raise DataError(f"{path}: {name}: turn {index}: found {turn!r:.40}, expected text")
        messages.append(Message(role, turn))
    return _ending_with_assistant(messages)


def _ending_with_assistant(turns: list[Message]) -> tuple[Message, ...]:
    """Remove the game's last answer: the task's user turn follows."""
    return tuple(turns[:-1] if turns[-1].role == "user" else turns)


@lru_cache(maxsize=16)
def _solved(data: str | Path | None, kind: str) -> tuple[tuple[str, OracleStep], ...]:
    """Play a solved game; return its observations, each with the step before it."""
    world = AlfworldEnvironment(data)
    for task_id in world.task_ids("train"):
        if f"-train-{kind}-" in task_id and (played := _play(world, task_id)):
            return played
    raise EnvironmentFailureError(f"alfworld: no training game of {kind} is solved in few moves")


def _play(world: AlfworldEnvironment, task_id: str) -> tuple[tuple[str, OracleStep], ...]:
    observation, _ = world.reset(options={"task_id": task_id})
    played = [(observation, OracleStep("", ""))]
    oracle = world.oracle()
    move = next(oracle)
    try:
        while len(played) <= MAX_MOVES:
            observation, _, over, _, _ = world.step(move.action)
            played.append((observation, move))
            if over:
                return tuple(played)
            move = oracle.send(observation)
    except StopIteration:
        pass
    return ()
