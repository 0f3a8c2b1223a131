"""What a worker of a Ray cluster runs: the collection engine over the driver's ledger."""

from __future__ import annotations

import asyncio
from typing import Any

from dataset_builders.collection.engine import CollectionEngine, Finisher, RolloutConfig
from dataset_builders.collection.ray_mailbox import RemoteLedger, obey
from dataset_builders.environments.prompts import Prompt
from dataset_builders.rollouts.parking import Parked


class _ChunkEngine(CollectionEngine):
    """A worker's engine: tasks are parked with the driver, who knows the answers of all chunks."""

    def __init__(
        self,
        play: RolloutConfig,
        driver: RemoteLedger,
        finish: Finisher | None,
        wording: Prompt,
        answers: int,
    ) -> None:
        super().__init__(play, driver, finish, wording, answers)
        self._driver = driver

    def play_parked(self, task: Parked) -> None:
        """Play a task that was parked, in place of others."""
        self._parking.add(task)

    async def _park(self, task: Parked) -> None:
        await self._driver.park(task)


def play_chunk(
    play: RolloutConfig,
    finish: Finisher | None,
    wording: Prompt,
    tasks: list[tuple[str, int]],
    mailbox: Any,
    answers: int,
    parked: Parked | None,
) -> tuple[dict[str, int], int]:
    """Play tasks on a worker; return retries by class and the reductions of concurrency."""

    async def run() -> tuple[dict[str, int], int]:
        engine = _ChunkEngine(play, RemoteLedger(mailbox), finish, wording, answers)
        if parked is not None:
            engine.play_parked(parked)
        listening = asyncio.create_task(obey(engine, mailbox))
        try:
            await engine.run([] if parked else tasks)
        finally:
            listening.cancel()
        return dict(engine.retries), engine.limit.cuts

    return asyncio.run(run())
