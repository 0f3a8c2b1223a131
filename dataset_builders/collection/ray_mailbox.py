"""Mailbox actor through which a cluster's workers call the driver's log.

An actor cannot call a driver. So workers put their calls into a mailbox and wait; the
driver takes them out, does them, and puts the answers back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from dataset_builders.collection.engine import CollectionEngine
from dataset_builders.endpoints.reply import Reply
from dataset_builders.rollouts.ledger import ACT, AttemptResult, Turn
from dataset_builders.rollouts.parking import Parked

PARK = "park"
"""Call of a worker that is not the ledger's: a task is parked."""

DRAIN, SUSPEND = 1, 2
"""Orders to the workers; the greater includes the smaller."""


class Mailbox:
    """Calls and answers; an asynchronous Ray actor, beside the driver."""

    def __init__(self) -> None:
        self._calls: list[tuple[int, str, tuple[Any, ...]]] = []
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._order, self._reason = 0, ""
        self._arrived = asyncio.Event()
        self._ordered = asyncio.Condition()

    async def ask(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """Called by a worker: have the driver's log execute a call."""
        self._number += 1
        self._calls.append((self._number, method, arguments))
        self._waiting[self._number] = answer = asyncio.get_running_loop().create_future()
        self._arrived.set()
        return await answer

    async def take(self) -> list[tuple[int, str, tuple[Any, ...]]]:
        """Called by the driver: return all pending calls, at least one."""
        await self._arrived.wait()
        self._arrived.clear()
        calls, self._calls = self._calls, []
        return calls

    async def give(self, answers: list[tuple[int, Any]]) -> None:
        """Called by the driver: answer calls."""
        for number, answer in answers:
            waiting = self._waiting.pop(number)
            if not waiting.done():  # A cancelled worker no longer waits.
                waiting.set_result(answer)

    async def tell(self, order: int, reason: str) -> None:
        """Called by the driver: give all workers an order, including later ones."""
        async with self._ordered:
            if order > self._order:
                self._order, self._reason = order, reason
                self._ordered.notify_all()

    async def order(self, known: int) -> tuple[int, str]:
        """Called by a worker: wait for an order that exceeds the known one."""
        async with self._ordered:
            await self._ordered.wait_for(lambda: self._order > known)
            return self._order, self._reason


class RemoteLedger:
    """The driver's log, accessed from a worker; see `RolloutLog`.

    Args:
        mailbox: Handle of the actor.
    """

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox

    async def turns(self, task_id: str, attempt: int, purpose: str = ACT) -> Sequence[Turn]:
        """See `Ledger.turns`."""
        return cast(Sequence[Turn], await self._ask("turns", task_id, attempt, purpose))

    async def reply(self, key: str) -> Reply | None:
        """See `Ledger.reply`."""
        return cast("Reply | None", await self._ask("reply", key))

    async def record(self, turn: Turn) -> bool:
        """See `Ledger.record`."""
        return bool(await self._ask("record", turn))

    async def end(self, ending: AttemptResult) -> bool:
        """See `Ledger.end`."""
        return bool(await self._ask("end", ending))

    async def park(self, task: Parked) -> None:
        """Park a task with the driver."""
        await self._ask(PARK, task)

    async def _ask(self, method: str, *arguments: Any) -> Any:
        return await self._mailbox.ask.remote(method, arguments)


async def obey(engine: CollectionEngine, mailbox: Any) -> None:
    """Follow the driver's orders on a worker, until cancelled."""
    known = 0
    while True:
        known, reason = await mailbox.order.remote(known)
        if known >= SUSPEND:
            engine.suspend(reason)
        else:
            engine.drain(reason)
