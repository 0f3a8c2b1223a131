"""Adaptive concurrency limit (AIMD) for requests to an endpoint.

Additive increase, multiplicative decrease, as in TCP and inspect_ai.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

START = 8
CUT = 0.7
"""Factor of the limit after an overload signal."""


class AdaptiveLimit:
    """A semaphore whose size adapts to the endpoint.

    Every success makes room for one more, where at least half of the room is used, until the first
    overload signal; after that only once per `limit` successes, about one round trip. An overload
    signal reduces the limit, but not again for requests sent before a reduction: they belong to the
    same event. Nothing is sent while the endpoint requests a pause.

    Args:
        ceiling: Maximum concurrent requests; at least 1.
        start: Initial limit.
        on_change: Called when there may be free slots.
        wanted: Tells how many requests could be in flight, such as the episodes in play; what
            is in flight if left out.
        clock: Tells seconds.

    Attributes:
        in_flight: Requests in flight.
        cuts: How often the limit was cut.
    """

    def __init__(
        self,
        ceiling: int,
        start: int = START,
        on_change: Callable[[], None] | None = None,
        wanted: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.in_flight = 0
        self.cuts = 0
        self._ceiling = ceiling
        self._limit = float(min(start, ceiling))
        self._on_change = on_change
        self._wanted = wanted
        self._clock = clock
        self._blocked_until = 0.0
        self._front = asyncio.Lock()
        self._room = asyncio.Event()

    @property
    def limit(self) -> int:
        """Current limit of concurrent requests."""
        return int(self._limit)

    @property
    def waits(self) -> float:
        """Seconds for which the endpoint still requests a pause."""
        return max(0.0, self._blocked_until - self._clock())

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[int]:
        """Hold one slot; yields the argument of `overloaded`."""
        await self._enter()
        try:
            yield self.cuts
        finally:
            self.in_flight -= 1
            self._room.set()

    def succeeded(self) -> None:
        """Record that a request was answered."""
        # Unused slots do not show what load the endpoint sustains.
        if 2 * max(self.in_flight, self._wanted()) >= self.limit:
            step = 1.0 if self.cuts == 0 else 1.0 / self._limit
            self._limit = min(float(self._ceiling), self._limit + step)
        self._room.set()
        if self._on_change is not None:
            self._on_change()

    def overloaded(self, slot: int) -> None:
        """Record that the endpoint signalled overload for a request.

        Args:
            slot: What `slot` yielded for the request.
        """
        if slot == self.cuts:
            self.cuts += 1
            self._limit = max(1.0, self._limit * CUT)

    def block(self, seconds: float) -> None:
        """Send nothing for a number of seconds."""
        self._blocked_until = max(self._blocked_until, self._clock() + seconds)

    async def _enter(self) -> None:
        # The lock is a queue: first come, first served.
        async with self._front:
            while self.waits or self.in_flight >= self.limit:
                if self.waits:
                    await asyncio.sleep(self.waits)
                    continue
                self._room.clear()
                await self._room.wait()
            self.in_flight += 1
