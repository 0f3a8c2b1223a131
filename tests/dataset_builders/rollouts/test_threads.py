"""The engine's loop beside the thread that called it, and batches of pending turns."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from dataset_builders.conversation import Message
from dataset_builders.endpoints.answer import Answer
from dataset_builders.endpoints.errors import EpisodeEndedError
from dataset_builders.environments import load_environment
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.model_policies import BatchingPolicy
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy, TurnRequest
from dataset_builders.rollouts.threads import WorkerPool, in_caller_thread, run_in_thread


def test_the_coroutine_runs_beside_the_caller_whose_calls_run_here() -> None:
    async def main() -> tuple[int, int]:
        return threading.get_ident(), await in_caller_thread(threading.get_ident)

    beside, here = run_in_thread(main)
    assert here == threading.get_ident() != beside


def test_an_interrupt_cancels_the_coroutine_and_waits_for_its_end() -> None:
    ended: list[str] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        try:
            await in_caller_thread(interrupt)
        finally:
            await asyncio.sleep(0.05)
            ended.append("closed")

    with pytest.raises(KeyboardInterrupt):
        run_in_thread(main)
    assert ended == ["closed"]


def test_errors_of_either_side_are_raised() -> None:
    async def fails() -> None:
        await in_caller_thread(int, "x")

    with pytest.raises(ValueError, match="invalid literal"):
        run_in_thread(fails)


def test_episodes_are_played_where_a_loop_is_running() -> None:
    database = load_environment("database")
    progress: list[int] = []

    def ended(trajectory: Trajectory) -> None:
        progress.append(threading.get_ident())

    async def notebook() -> list[Trajectory]:
        return play(database, database.task_ids("train")[:3], OraclePolicy(), on_progress=ended)

    assert [trajectory.reward for trajectory in asyncio.run(notebook())] == [1.0] * 3
    assert progress == [threading.get_ident()] * 3


def test_a_cancelled_call_holds_no_other() -> None:
    held = threading.Event()

    async def main() -> int:
        pool = WorkerPool()
        slow = asyncio.create_task(pool.run(held.wait, 30))
        await asyncio.sleep(0.05)
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)
        return await asyncio.wait_for(pool.run(lambda: 7), 10)

    try:
        assert asyncio.run(main()) == 7
    finally:
        held.set()


class Model:
    """Repeats the last message; notes the batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def __call__(
        self, dialogues: Sequence[Sequence[Message]], most: int, tools: Sequence[str]
    ) -> list[str | None]:
        assert most == 9
        self.batches.append([dialogue[-1].content for dialogue in dialogues])
        return [
            Answer(refused="refused_by_endpoint: no") if text == "bad" else text
            for text in self.batches[-1]
        ]


def pending(text: str, index: int) -> TurnRequest:
    return TurnRequest([Message("user", text)], 9, index=index)


def test_a_batch_waits_for_all_episodes_and_has_them_in_their_order() -> None:
    model = Model()

    async def main() -> list[str]:
        policy = BatchingPolicy(model)
        policy.set_in_play(3)
        turns = [asyncio.create_task(policy.next_turn(pending(f"{n}", n))) for n in (2, 0)]
        await asyncio.sleep(0.05)
        assert model.batches == []
        turns.append(asyncio.create_task(policy.next_turn(pending("1", 1))))
        texts = [reply.text for reply in await asyncio.gather(*turns)]
        alone = asyncio.create_task(policy.next_turn(pending("4", 4)))
        await asyncio.sleep(0.05)
        policy.set_in_play(1)  # The others have ended.
        return [*texts, (await alone).text]

    assert run_in_thread(main) == ["2", "0", "1", "4"]
    assert model.batches == [["0", "1", "2"], ["4"]]


def test_a_refused_turn_ends_its_episode_alone() -> None:
    async def main() -> list[object]:
        policy = BatchingPolicy(Model())
        policy.set_in_play(2)
        both = [policy.next_turn(pending(text, n)) for n, text in enumerate(("bad", "good"))]
        return list(await asyncio.gather(*both, return_exceptions=True))

    refused, good = run_in_thread(main)
    assert isinstance(refused, EpisodeEndedError)
    assert (refused.reason, str(refused)) == ("refused_by_endpoint", "refused_by_endpoint: no")
    assert getattr(good, "text", "") == "good"
