"""Pool of environments, each used by one episode at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

from dataset_builders.environments import EnvironmentSpec
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.environments.prompts import Prompt
from dataset_builders.errors import EnvironmentFailureError
from dataset_builders.rollouts.episode import close_quietly
from dataset_builders.rollouts.threads import Worker

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

CALL_LIMIT = 600.0
"""Timeout of an environment call in seconds."""

_CLOSING = 15.0


class Seat:
    """One environment, and its thread.

    A dialogue always runs in the same thread: some have a database connection, or a child process,
    that is bound to its thread.

    Args:
        make: Makes the dialogue.
        threaded: Whether it gets a thread; else it is played on the event loop.
        call_limit: Seconds that a call may take in a thread.
    """

    def __init__(
        self, make: Callable[[], Dialogue], threaded: bool, call_limit: float = CALL_LIMIT
    ) -> None:
        self.lost = False
        self._make = make
        self._worker = Worker("environment") if threaded else None
        self._call_limit = call_limit
        self._dialogue: Dialogue | None = None

    @property
    def dialogue(self) -> Dialogue:
        """The dialogue; must be accessed within `run`, and is created on first access."""
        if self._dialogue is None:
            self._dialogue = self._make()
        return self._dialogue

    async def run(self, call: Callable[..., _T], *arguments: object) -> _T:
        """Run environment code in its thread.

        Raises:
            EnvironmentFailureError: It did not answer in time; the seat is lost.
            Exception: Whatever the call raises.
        """
        if self._worker is None:
            return call(*arguments)
        future = self._worker.submit(lambda: call(*arguments))
        try:
            async with asyncio.timeout(self._call_limit):
                return await future
        except TimeoutError:
            if not future.cancelled():
                raise  # The environment's own.
            self.lost = True
            raise EnvironmentFailureError(f"no answer within {self._call_limit:g} s") from None

    async def close(self) -> None:
        """Close the dialogue and end the thread; a hanging dialogue is abandoned."""
        try:
            async with asyncio.timeout(_CLOSING):
                await self.run(self._close)
        except (TimeoutError, EnvironmentFailureError):
            _log.warning("an environment did not close within %g s", _CLOSING)
        finally:
            # Even if cancelled: the thread still closes the dialogue before it ends.
            if self._worker is not None:
                self._worker.end()

    def _close(self) -> None:
        dialogue, self._dialogue = self._dialogue, None
        if dialogue is not None:
            close_quietly(dialogue)


class Seats:
    """Free environments, kept for the next episodes: some start slowly.

    Args:
        spec: What is played.
        wording: Its prompt, read once.
    """

    def __init__(self, spec: EnvironmentSpec, wording: Prompt) -> None:
        self._spec = spec
        self._wording = wording
        self._threaded: bool | None = None
        self._free: list[Seat] = []
        self._closing: set[asyncio.Task[None]] = set()

    def take(self) -> Seat:
        """Return a free environment, or a new one."""
        if self._threaded is None:
            self._threaded = self._spec.isolation(self._spec.world()) != "inline"
        return self._free.pop() if self._free else Seat(self._dialogue, self._threaded)

    async def give(self, seat: Seat, *, sound: bool) -> None:
        """Return an environment to the pool.

        Args:
            seat: The seat.
            sound: Whether the episode ended by itself; else its environment is closed, for
                it may hold something, or not be trusted with another task.
        """
        if sound:
            self._free.append(seat)
        elif not seat.lost:
            closing = asyncio.create_task(seat.close())
            self._closing.add(closing)
            # An episode that is cancelled here does not leave its environment open: see `close`.
            await asyncio.shield(closing)

    async def close(self) -> None:
        """Close all free environments, and wait for those that are being closed."""
        free, self._free = self._free, []
        await asyncio.gather(*(seat.close() for seat in free), *self._closing)

    def _dialogue(self) -> Dialogue:
        return self._spec.make(self._wording, isolate=True)
