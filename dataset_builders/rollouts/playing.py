"""Playing one episode, from its beginning or from where a killed process left it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from dataset_builders.conversation import Message
from dataset_builders.endpoints.answer import Answer
from dataset_builders.endpoints.errors import OF_ENDPOINT, EpisodeEndedError, ends_episode
from dataset_builders.endpoints.reply import Reply
from dataset_builders.errors import EnvironmentFailureError
from dataset_builders.finish_reason import is_cut
from dataset_builders.rollouts.episode import ENVIRONMENT_ERROR, Episode
from dataset_builders.rollouts.ledger import AttemptResult, RolloutLog, Turn, Usage
from dataset_builders.rollouts.limits import (
    COST_LIMIT,
    STEP_LIMIT,
    TIME_LIMIT,
    TOKEN_LIMIT,
    Limits,
)
from dataset_builders.rollouts.recorded_client import RecordedClient
from dataset_builders.rollouts.seats import Seat

REPLAY_DIVERGED = "replay_diverged"

UNFINISHED = frozenset(
    {
        *(STEP_LIMIT, TOKEN_LIMIT, COST_LIMIT, TIME_LIMIT),
        *OF_ENDPOINT,
        *(ENVIRONMENT_ERROR, REPLAY_DIVERGED),
    }
)
"""Exit reasons that say nothing about the model: such trajectories are never kept."""

_T = TypeVar("_T")
_NUMBER = re.compile(r"\d+")


class Player(Protocol):
    """Whatever acts in an episode."""

    async def turn(self, episode: Episode, seat: Seat, attempt: int) -> Reply | None:
        """The next turn; None where the environment broke as it was asked."""


class ModelPlayer:
    """A model behind an endpoint.

    Args:
        client: Asks it.
        max_tokens: Tokens a turn may have.
    """

    def __init__(self, client: RecordedClient, max_tokens: int) -> None:
        self._client = client
        self._max_tokens = max_tokens

    async def turn(self, episode: Episode, seat: Seat, attempt: int) -> Reply | None:
        """Ask the model."""
        shown = await _shielded(episode, seat, episode.shown)
        if shown is None:
            return None
        return await self._client.complete(
            shown,
            task_id=episode.task_id,
            attempt=attempt,
            round=episode.num_rounds,
            max_tokens=self._max_tokens,
        )


class OraclePlayer:
    """The environment's own oracle; costs nothing, and nothing of it is recorded."""

    async def turn(self, episode: Episode, seat: Seat, attempt: int) -> Reply | None:
        """Ask the oracle."""
        del attempt
        # Let the others on: an episode that never waits would hold the event loop. A model's
        # does wait; what it does between answer and request is better done in one go, for
        # then answers that came together lead to requests that are spread out.
        await asyncio.sleep(0)
        text = await _shielded(episode, seat, episode.oracle_turn)
        return None if text is None else Reply(text, cost=0.0)


async def play_episode(
    task_id: str,
    attempt: int,
    *,
    seat: Seat,
    player: Player,
    ledger: RolloutLog,
    limits: Limits,
    environment: str,
) -> AttemptResult:
    """Play an attempt to its end.

    An attempt that a killed process had begun is taken up: the recorded replies are acted
    again in a fresh environment, and nothing recorded is asked for again. A fresh
    environment may answer with other numbers (times, sizes, process ids). As long as it
    differs in nothing else, the conversation keeps what the model was shown. Beyond that
    the recorded replies would answer something that is not there, and the state that is
    scored would not be what the conversation tells of: the attempt then ends with exit
    reason "replay_diverged" and reward 0.

    Args:
        task_id: The task.
        attempt: Attempt at it, from 0.
        seat: The environment to play in.
        player: What acts.
        ledger: Where replies of a former process are found.
        limits: What the episode may take. Its time is that of this process, and that of
            the recorded requests.
        environment: Name of the environment.

    Returns:
        How it ended, as the task's final attempt.

    Raises:
        EndpointError: No episode can go on.
        ConfigError, MissingExtraError, SourceNotFoundError: What the user has to mend.
    """
    episode, spent, begun = Episode(0, task_id), Usage(), time.monotonic()
    await _shielded(episode, seat, lambda: episode.start(seat.dialogue))
    turns = await ledger.turns(task_id, attempt)
    await _replay(episode, seat, turns)
    for turn in turns:
        spent = spent.plus(turn.reply)
        begun -= turn.reply.seconds
    while not episode.exit_reason:
        seconds = time.monotonic() - begun
        if reason := limits.reached(episode.num_rounds, spent, seconds):
            _end(episode, reason)
            break
        try:
            reply = await player.turn(episode, seat, attempt)
        except EpisodeEndedError as error:
            # A reply that ends the episode is paid and recorded, as any.
            spent = _total(await ledger.turns(task_id, attempt))
            _end(episode, error.reason)
            episode.error = str(error)
            break
        if reply is not None:
            if reply.model:  # An oracle has none, and costs nothing.
                spent = spent.plus(reply)
            await _act(episode, seat, reply)
    return AttemptResult(episode.trajectory(environment), attempt, True, spent)


def _total(turns: Sequence[Turn]) -> Usage:
    spent = Usage()
    for turn in turns:
        spent = spent.plus(turn.reply)
    return spent


async def _replay(episode: Episode, seat: Seat, turns: Sequence[Turn]) -> None:
    for turn in turns:
        if episode.exit_reason == ENVIRONMENT_ERROR:
            return
        fresh = (await _shielded(episode, seat, episode.shown) or episode.messages)[-1]
        if episode.exit_reason or not agree(turn.shown, fresh.content):
            _end(episode, REPLAY_DIVERGED)
            return
        if reason := ends_episode(turn.reply):  # It was paid for, and never played.
            _end(episode, reason)
            return
        if fresh is episode.messages[-1]:  # Else there was no room to show it.
            episode.messages[-1] = Message(fresh.role, turn.shown)
        await _act(episode, seat, turn.reply)


async def _act(episode: Episode, seat: Seat, reply: Reply) -> None:
    answer = Answer(
        reply.text,
        cut=is_cut(reply.finish_reason),
        calls=reply.calls,
        reasoning=reply.reasoning,
    )
    await _shielded(episode, seat, episode.act, answer)


def agree(recorded: str, fresh: str) -> bool:
    """Whether two observations differ in nothing but numbers."""
    return recorded == fresh or _NUMBER.sub("0", recorded) == _NUMBER.sub("0", fresh)


def _end(episode: Episode, reason: str) -> None:
    episode.exit_reason, episode.reward, episode.success = reason, 0.0, False


async def _shielded(
    episode: Episode, seat: Seat, call: Callable[..., _T], *arguments: object
) -> _T | None:
    """Run the environment's code; if it breaks or hangs, only this episode ends."""
    try:
        return await seat.run(episode.shield, call, *arguments)
    except EnvironmentFailureError as error:
        _end(episode, ENVIRONMENT_ERROR)
        episode.error = str(error)
        return None
