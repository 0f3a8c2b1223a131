"""Play one episode, from its start or resumed after a killed process."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from dataset_builders.conversation import Message
from dataset_builders.endpoints.errors import OF_ENDPOINT, EpisodeEndedError, ends_episode
from dataset_builders.endpoints.reply import Reply
from dataset_builders.environments import EnvironmentSpec
from dataset_builders.errors import EnvironmentFailureError
from dataset_builders.rollouts.answered import answered, answered_text, with_text
from dataset_builders.rollouts.episode import ENVIRONMENT_ERROR, Episode
from dataset_builders.rollouts.ledger import AttemptResult, EpisodeLog, Turn, Usage
from dataset_builders.rollouts.limits import (
    COST_LIMIT,
    STEP_LIMIT,
    TIME_LIMIT,
    TOKEN_LIMIT,
    Limits,
)
from dataset_builders.rollouts.policy import Policy, TurnRequest
from dataset_builders.rollouts.seats import Seat

REPLAY_DIVERGED = "replay_diverged"

UNFINISHED = frozenset(
    {
        *(STEP_LIMIT, TOKEN_LIMIT, COST_LIMIT, TIME_LIMIT),
        *OF_ENDPOINT,
        *(ENVIRONMENT_ERROR, REPLAY_DIVERGED),
    }
)
"""Exit reasons unrelated to the model: such trajectories are never kept."""

_T = TypeVar("_T")
Shown = tuple[Message, ...]
_NUMBER = re.compile(r"\d+")


async def play_episode(
    episode: Episode,
    attempt: int,
    *,
    seat: Seat,
    policy: Policy,
    log: EpisodeLog,
    limits: Limits,
    environment: EnvironmentSpec,
    on_turn: Callable[[], None] = lambda: None,
) -> AttemptResult:
    """Play an attempt to its end.

    An attempt that a killed process had begun is resumed: the recorded replies are acted
    again in a fresh environment, and nothing recorded is asked for again. A fresh
    environment may answer with other numbers (times, sizes, process ids). As long as it
    differs in nothing else, the conversation keeps what the model was shown. Beyond that
    the recorded replies would answer something that is not there, and the state that is
    scored would not be what the conversation tells of: the attempt then ends with exit
    reason "replay_diverged" and reward 0.

    Args:
        episode: The episode, not yet begun.
        attempt: Attempt at its task, from 0.
        seat: The environment to play in.
        policy: What acts.
        log: Where replies of a former process are found.
        limits: What the episode may take. Its time is that of this process, and that of
            the recorded requests.
        environment: What is played.
        on_turn: Called after each turn of the policy.

    Returns:
        How it ended, as the task's final attempt.

    Raises:
        EndpointError: No episode can continue.
        ConfigError, MissingExtraError, SourceNotFoundError: The user has to fix it.
    """
    spent, begun, task_id = Usage(), time.monotonic(), episode.task_id
    turns = await log.turns(task_id, attempt)
    shown = await _shielded(episode, seat, lambda: _start(episode, seat, whole=not turns))
    if turns:
        await _replay(episode, seat, turns)
        spent = _total(turns)
        begun -= sum(turn.reply.seconds for turn in turns)
        if not episode.exit_reason:
            shown = await _shielded(episode, seat, episode.shown)

    async def oracle() -> str:
        text = await _shielded(episode, seat, episode.oracle_turn)
        if text is None:
            raise EpisodeEndedError(ENVIRONMENT_ERROR, episode.error)
        return text

    while not episode.exit_reason:
        assert shown is not None  # Otherwise the environment failed.
        seconds = time.monotonic() - begun
        if reason := limits.reached(episode.num_rounds, spent, seconds):
            episode.fail(reason)
            break
        request = TurnRequest(
            shown,
            environment.max_new_tokens,
            task_id,
            attempt,
            episode.num_rounds,
            index=episode.index,
            oracle=oracle,
            tools=episode.tools,
        )
        try:
            reply = await policy.next_turn(request)
        except EpisodeEndedError as error:
            # A reply that ends the episode is paid for and recorded like any other.
            spent = _total(await log.turns(task_id, attempt))
            episode.fail(error.reason, str(error))
            break
        on_turn()
        if reply.model:  # An oracle has no usage and no cost.
            spent = spent.plus(reply)
        shown = await _shielded(episode, seat, _act, episode, reply)
    return AttemptResult(episode.trajectory(environment.name), attempt, True, spent, episode.index)


def _start(episode: Episode, seat: Seat, *, whole: bool) -> Shown | None:
    episode.start(seat.dialogue)
    return episode.shown() if whole else None


def _act(episode: Episode, reply: Reply) -> Shown | None:
    """Take a turn; returns what the model is shown next, made in the environment's thread too."""
    episode.act(reply)
    return None if episode.exit_reason else episode.shown()


def _total(turns: Sequence[Turn]) -> Usage:
    spent = Usage()
    for turn in turns:
        spent = spent.plus(turn.reply)
    return spent


async def _replay(episode: Episode, seat: Seat, turns: Sequence[Turn]) -> None:
    for turn in turns:
        if episode.exit_reason == ENVIRONMENT_ERROR:
            return
        shown = await _shielded(episode, seat, episode.shown) or episode.messages
        if episode.exit_reason or not agree(turn.shown, answered_text(shown)):
            episode.fail(REPLAY_DIVERGED)
            return
        if reason := ends_episode(turn.reply):  # It was paid for, but never played.
            episode.fail(reason)
            return
        if shown[-1] is episode.messages[-1]:  # Otherwise it did not fit the context.
            recorded = with_text(answered(shown), turn.shown)
            episode.messages[-len(recorded) :] = recorded
        await _shielded(episode, seat, episode.act, turn.reply)


def agree(recorded: str, fresh: str) -> bool:
    """Whether two observations differ only in numbers."""
    return recorded == fresh or _NUMBER.sub("0", recorded) == _NUMBER.sub("0", fresh)


async def _shielded(
    episode: Episode, seat: Seat, call: Callable[..., _T], *arguments: object
) -> _T | None:
    """Run environment code; if it fails or hangs, only this episode ends."""
    try:
        return await seat.run(episode.shield, call, *arguments)
    except EnvironmentFailureError as error:
        episode.fail(ENVIRONMENT_ERROR, str(error))
        return None
