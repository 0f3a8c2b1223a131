"""Episodes in play beside each other, each environment in the thread that it lives in."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

from dataset_builders.environments import EnvironmentSpec
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.rollouts.episode import ENVIRONMENT_ERROR, Episode, close_quietly
from dataset_builders.rollouts.own_thread import NoThread, OwnThread

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

_CLOSING = 15.0
"""Seconds after which an environment that does not close is left behind."""


@dataclass(frozen=True, slots=True, eq=False)
class _Seat:
    dialogue: Dialogue
    thread: OwnThread | NoThread

    def close(self) -> Future[None]:
        closing = self.thread.submit(lambda: close_quietly(self.dialogue))
        self.thread.end()
        return closing


class Table(Generic[_T]):
    """Episodes in play, and environments kept for the next ones: some start slowly.

    Args:
        environment: What is played.
        prepare: What is wanted of an episode before its next turn; called in its thread.

    Attributes:
        active: All episodes, in the order in which they began.
        ready: What `prepare` returned, of those that wait for a turn; None where the
            environment broke.
    """

    def __init__(self, environment: EnvironmentSpec, prepare: Callable[[Episode], _T]) -> None:
        self._spec = environment
        self._wording = environment.wording()
        self._prepare = prepare
        self._idle: list[_Seat] = []
        self._seats: dict[Episode, _Seat] = {}
        self._busy: dict[Episode, Future[_T | None]] = {}
        self.active: list[Episode] = []
        self.ready: dict[Episode, _T | None] = {}

    def seat(self, episode: Episode) -> None:
        """Begin an episode."""
        self.active.append(episode)
        seat = self._idle.pop() if self._idle else episode.shield(self._make)
        if seat is None:
            self.ready[episode] = None
            return
        self._seats[episode] = seat
        self._submit(episode, lambda: episode.start(seat.dialogue))

    def act(self, episode: Episode, reply: str | None) -> None:
        """Let an episode take its turn."""
        del self.ready[episode]
        self._submit(episode, lambda: episode.act(reply))

    def settle(self, patience: float) -> None:
        """Wait for the environments: for all, or until one has ended and can be replaced.

        Args:
            patience: Point in time (of `time.monotonic`) from which on half of the episodes
                are enough, so that the others' environments work beside the next turns.
        """
        while True:
            done = [episode for episode, future in self._busy.items() if future.done()]
            for episode in done:
                self.ready[episode] = self._busy.pop(episode).result()
            if not self._busy or self.over():
                return
            left = patience - time.monotonic()
            if left <= 0 and 2 * len(self.ready) >= len(self.active):
                return
            wait(
                self._busy.values(),
                timeout=left if 0 < left < math.inf else None,
                return_when=FIRST_COMPLETED,
            )

    def over(self) -> list[Episode]:
        """Episodes that have ended."""
        return [e for e in self.active if e.exit_reason and e in self.ready]

    def leave(self, episode: Episode) -> None:
        """Take the environment back; one that broke is not trusted with another task."""
        self.active.remove(episode)
        del self.ready[episode]
        episode.dialogue = None
        seat = self._seats.pop(episode, None)
        if seat is None:
            return
        if episode.exit_reason == ENVIRONMENT_ERROR:
            _wait_for([seat])
        else:
            self._idle.append(seat)

    def close(self) -> None:
        """Close all environments."""
        _wait_for([*self._idle, *self._seats.values()])

    def _make(self) -> _Seat:
        dialogue = self._spec.make(self._wording, isolate=True)
        inline = dialogue.env.isolation == "inline"
        return _Seat(dialogue, NoThread() if inline else OwnThread())

    def _submit(self, episode: Episode, step: Callable[[], None]) -> None:
        def job() -> _T | None:
            episode.shield(step)
            return None if episode.exit_reason else episode.shield(self._prepare, episode)

        self._busy[episode] = self._seats[episode].thread.submit(job)


def _wait_for(seats: Sequence[_Seat]) -> None:
    _, late = wait([seat.close() for seat in seats], timeout=_CLOSING)
    if late:
        _log.warning("%d environments did not close within %g s", len(late), _CLOSING)
