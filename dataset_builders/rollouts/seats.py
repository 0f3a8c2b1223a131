"""Environments that episodes are played in, each used by one episode at a time."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from dataset_builders.environments import EnvironmentSpec
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.environments.prompts import Prompt
from dataset_builders.errors import EnvironmentFailureError
from dataset_builders.rollouts.episode import close_quietly

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

CALL_LIMIT = 600.0
"""Seconds after which an environment that does not answer is given up."""

_CLOSING = 15.0


class _Worker:
    """A thread that does one thing after the other.

    Not an executor's: the interpreter waits for those at its end, and an environment that
    hangs would hold it for ever.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Any] = SimpleQueue()
        threading.Thread(target=self._work, name="environment", daemon=True).start()

    def submit(self, call: Callable[[], _T]) -> asyncio.Future[_T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        self._jobs.put((loop, future, call))
        return future

    def end(self) -> None:
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            loop, future, call = job
            result, error = None, None
            try:
                result = call()
            except BaseException as raised:
                error = raised
            try:
                loop.call_soon_threadsafe(_settle, future, result, error)
            except RuntimeError:  # The loop is closed: nobody waits any more.
                return


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


class Seat:
    """One environment, and the thread that it lives in.

    A dialogue stays in its thread for life: some hold a database connection, or a child
    process that only its own thread may speak to.

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
        self._worker = _Worker() if threaded else None
        self._call_limit = call_limit
        self._dialogue: Dialogue | None = None

    @property
    def dialogue(self) -> Dialogue:
        """The dialogue; to be asked for within `run`, for the first time makes it."""
        if self._dialogue is None:
            self._dialogue = self._make()
        return self._dialogue

    async def run(self, call: Callable[..., _T], *arguments: object) -> _T:
        """Run the environment's code where it may run.

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
        """Close the dialogue and end the thread; a dialogue that hangs is left behind."""
        try:
            async with asyncio.timeout(_CLOSING):
                await self.run(self._close)
        except (TimeoutError, EnvironmentFailureError):
            _log.warning("an environment did not close within %g s", _CLOSING)
        finally:
            # Also where this is cancelled: the thread still closes the dialogue before it ends.
            if self._worker is not None:
                self._worker.end()

    def _close(self) -> None:
        dialogue, self._dialogue = self._dialogue, None
        if dialogue is not None:
            close_quietly(dialogue)


class Seats:
    """Seats that are free, kept for the next episodes: some environments start slowly.

    Args:
        spec: What is played.
        wording: Its prompt, read once.
    """

    def __init__(self, spec: EnvironmentSpec, wording: Prompt) -> None:
        self._spec = spec
        self._wording = wording
        self._threaded = spec.world().isolation != "inline"
        self._free: list[Seat] = []

    def take(self) -> Seat:
        """A free seat, or a new one."""
        return self._free.pop() if self._free else Seat(self._dialogue, self._threaded)

    async def give(self, seat: Seat, *, sound: bool) -> None:
        """Take a seat back.

        Args:
            seat: The seat.
            sound: Whether the episode ended by itself; else its environment is closed, for
                it may hold something, or not be trusted with another task.
        """
        if sound:
            self._free.append(seat)
        elif not seat.lost:
            await seat.close()

    async def close(self) -> None:
        """Close all that are free."""
        free, self._free = self._free, []
        await asyncio.gather(*(seat.close() for seat in free))

    def _dialogue(self) -> Dialogue:
        return self._spec.make(self._wording, isolate=True)
