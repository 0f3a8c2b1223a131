"""The adaptive limit, on a clock that jumps."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.endpoints.concurrency import AdaptiveLimit

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    """Does not wait: it lets the time pass that would have been waited."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout:
            _JumpingSelector.now += timeout
        return ready


def virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run with a loop whose clock jumps to what is due next; the same chances every time."""
    random.seed(0)
    selector = _JumpingSelector()
    _JumpingSelector.now = 0.0
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: _JumpingSelector.now  # type: ignore[method-assign]
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)


def clock() -> float:
    return _JumpingSelector.now


class Server:
    """Bears so many requests at once; refuses the rest."""

    def __init__(self, capacity: int, latency: float = 1.0, wait: float | None = None) -> None:
        self.capacity, self.latency, self.wait = capacity, latency, wait
        self.in_flight = self.served = self.refused = self.most = 0
        self.refused_at: list[float] = []
        self.sent_at: list[float] = []

    async def ask(self, limit: AdaptiveLimit) -> None:
        while True:
            async with limit.slot() as slot:
                self.sent_at.append(clock())
                if self.in_flight >= self.capacity:
                    self.refused += 1
                    self.refused_at.append(clock())
                    await asyncio.sleep(0.05)
                    limit.overloaded(slot)
                    if self.wait:
                        limit.block(self.wait)
                else:
                    self.in_flight += 1
                    self.most = max(self.most, self.in_flight)
                    await asyncio.sleep(self.latency * random.uniform(0.8, 1.2))
                    self.in_flight -= 1
                    self.served += 1
                    limit.succeeded()
                    return
            if not self.wait:
                await asyncio.sleep(random.uniform(0.25, 0.5))  # As the client does.


async def load(server: Server, limit: AdaptiveLimit, workers: int, requests: int) -> None:
    async def work() -> None:
        for _ in range(requests):
            await server.ask(limit)

    await asyncio.gather(*(work() for _ in range(workers)))


def test_without_complaints_it_rises_to_the_ceiling() -> None:
    limit, server = AdaptiveLimit(64, clock=clock), Server(1000)
    virtually(load(server, limit, 100, 20))
    assert (limit.limit, limit.cuts, server.most) == (64, 0, 64)
    # 2000 requests, 64 a second: at 90 % of the ideal with the rise from 8 included.
    assert clock() < 2000 / 64 / 0.9


@pytest.mark.parametrize("capacity", [3, 20, 48])
def test_it_settles_near_what_the_endpoint_bears(capacity: int) -> None:
    random.seed(0)
    limit, server = AdaptiveLimit(200, clock=clock), Server(capacity)
    virtually(load(server, limit, 200, 20))
    ideal = 4000 / capacity
    assert clock() < ideal / 0.7
    # One more than it bears is tried again and again: the smaller, the more often.
    assert server.refused < (0.1 + 0.6 / capacity) * server.served
    assert server.most == capacity


def test_a_burst_of_complaints_cuts_once() -> None:
    limit = AdaptiveLimit(100, start=100, clock=clock)

    async def run() -> None:
        async def one() -> None:
            async with limit.slot() as slot:
                await asyncio.sleep(1)
                limit.overloaded(slot)

        await asyncio.gather(*(one() for _ in range(100)))

    virtually(run())
    assert (limit.cuts, limit.limit) == (1, 70)


def test_nothing_is_sent_while_the_endpoint_wants_to_be_left_alone() -> None:
    limit, server = AdaptiveLimit(50, clock=clock), Server(10, wait=30.0)
    virtually(load(server, limit, 50, 5))
    assert server.refused_at
    told = [at + 0.05 for at in server.refused_at]
    assert not [at for at in server.sent_at if any(t < at < t + 29.9 for t in told)]


def test_it_never_falls_below_one() -> None:
    limit = AdaptiveLimit(4, clock=clock)

    async def run() -> None:
        for _ in range(30):
            async with limit.slot() as slot:
                limit.overloaded(slot)

    virtually(run())
    assert limit.limit == 1


def test_those_who_wait_are_served_in_their_order() -> None:
    limit, order = AdaptiveLimit(1, clock=clock), []

    async def one(number: int) -> None:
        async with limit.slot():
            order.append(number)
            await asyncio.sleep(1)

    async def run() -> None:
        await asyncio.gather(*(one(number) for number in range(20)))

    virtually(run())
    assert order == list(range(20))


@given(seed=st.integers(0, 10_000), ceiling=st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_cancelled_waiters_leave_no_trace(seed: int, ceiling: int) -> None:
    rng = random.Random(seed)
    limit = AdaptiveLimit(ceiling, clock=clock)
    held = most = 0

    async def one(seconds: float) -> None:
        nonlocal held, most
        async with limit.slot() as slot:
            held += 1
            most = max(most, held)
            try:
                assert held <= limit.limit + limit.cuts * ceiling
                await asyncio.sleep(seconds)
            finally:
                held -= 1
            limit.succeeded() if rng.random() < 0.8 else limit.overloaded(slot)

    async def run() -> None:
        tasks = [asyncio.create_task(one(rng.uniform(0, 2))) for _ in range(40)]
        for task in rng.sample(tasks, 15):
            await asyncio.sleep(rng.uniform(0, 0.3))
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (limit.in_flight, held) == (0, 0)
        async with asyncio.timeout(1):
            await one(0)

    virtually(run())
    assert most <= ceiling


def test_room_that_nobody_uses_does_not_grow() -> None:
    limit, server = AdaptiveLimit(64, clock=clock), Server(1000)
    virtually(load(server, limit, 1, 100))
    assert limit.limit == 8
    virtually(load(server, limit, 20, 10))
    assert 20 <= limit.limit <= 41
