"""Episodes whose turns are answered each by itself: none waits for another's turn."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from dataset_builders.conversation import Message
from dataset_builders.environments import load_environment
from dataset_builders.errors import ConfigError, EndpointError
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.model_policies import BatchingPolicy, ConcurrentPolicy
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.seats import Seat

DATABASE = load_environment("database")
TASKS = DATABASE.task_ids("train")[:12]


class Answering:
    """Says the same at once, but waits with the first task's turns for the others' end."""

    def __init__(self, held: str = "") -> None:
        self.held, self.others_ended = held, threading.Event()
        self.most = self._now = 0
        self._lock = threading.Lock()

    def complete(
        self, dialogues: Sequence[Sequence[Message]], max_new_tokens: int, tools: Sequence[str]
    ) -> list[str | None]:
        with self._lock:
            self._now += len(dialogues)
            self.most = max(self.most, self._now)
        if self.held and self.held in dialogues[0][-1].content:
            assert self.others_ended.wait(60)
        with self._lock:
            self._now -= len(dialogues)
        return ["Hm.\nAction: Answer\nFinal Answer: [1]" for _ in dialogues]


def concurrently(
    tasks: Sequence[str],
    policy: Answering,
    batch_size: int,
    sustained: Callable[[], int],
    on_progress: Callable[[Trajectory], None] | None = None,
) -> list[Trajectory]:
    return play(
        DATABASE,
        tasks,
        ConcurrentPolicy(policy.complete),
        batch_size=batch_size,
        in_flight_limit=sustained,
        on_progress=on_progress,
    )


def test_a_slow_turn_holds_no_other_episode() -> None:
    expected = play(DATABASE, TASKS, BatchingPolicy(Answering().complete))
    asked = [m.content for m in expected[0].messages if m.role == "user"][-1]
    policy, ended = Answering(asked), list[str]()

    def progress(trajectory: Trajectory) -> None:
        ended.append(trajectory.task_id)
        if len(ended) == len(TASKS) - 1:
            policy.others_ended.set()

    found = play(
        DATABASE,
        TASKS,
        ConcurrentPolicy(policy.complete),
        batch_size=4,
        in_flight_limit=lambda: 4,
        on_progress=progress,
    )
    assert found == expected
    assert ended[-1] == TASKS[0]


def test_no_more_are_in_play_than_are_borne() -> None:
    for ceiling, borne in ((2, 50), (50, 3)):
        policy = Answering()
        play(
            DATABASE,
            TASKS,
            ConcurrentPolicy(policy.complete),
            batch_size=ceiling,
            in_flight_limit=lambda n=borne: n,
        )  # type: ignore[misc]
        assert policy.most <= min(ceiling, borne)


def test_what_the_policy_raises_ends_all() -> None:
    class Dead(Answering):
        def complete(
            self, dialogues: Sequence[Sequence[Message]], max_new_tokens: int, tools: Sequence[str]
        ) -> list[str | None]:
            raise EndpointError("down")

    with pytest.raises(EndpointError, match="down"):
        play(
            DATABASE,
            TASKS,
            ConcurrentPolicy(Dead().complete),
            batch_size=4,
            in_flight_limit=lambda: 4,
        )
    with pytest.raises(ConfigError, match="batch_size"):
        play(
            DATABASE,
            TASKS,
            ConcurrentPolicy(Answering().complete),
            batch_size=0,
            in_flight_limit=lambda: 4,
        )


def test_a_task_that_is_unknown_is_named() -> None:
    with pytest.raises(ConfigError, match="database-train-x"):
        play(
            DATABASE,
            ["database-train-x"],
            ConcurrentPolicy(Answering().complete),
            batch_size=2,
            in_flight_limit=lambda: 2,
        )


def test_environments_are_closed_when_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Seat] = []
    closed: list[Seat] = []
    make, close = Seat.__init__, Seat.close

    def begin(seat: Seat, *arguments: Any) -> None:
        opened.append(seat)
        make(seat, *arguments)

    async def slow(seat: Seat) -> None:
        await asyncio.sleep(0.2)
        await close(seat)
        closed.append(seat)

    monkeypatch.setattr(Seat, "__init__", begin)
    monkeypatch.setattr(Seat, "close", slow)
    play(
        DATABASE,
        TASKS[:4],
        ConcurrentPolicy(Answering().complete),
        batch_size=2,
        in_flight_limit=lambda: 2,
    )
    assert opened
    assert len(closed) == len(opened)

    def failing(trajectory: Trajectory) -> None:
        raise EndpointError("down")

    with pytest.raises(EndpointError, match="down"):
        play(
            DATABASE,
            TASKS[:4],
            ConcurrentPolicy(Answering().complete),
            batch_size=2,
            in_flight_limit=lambda: 2,
            on_progress=failing,
        )
    assert len(closed) == len(opened)


def test_more_begin_as_soon_as_more_are_sustained() -> None:
    class Meeting(Answering):
        """Answers the second turns only when there are three of them at once."""

        together = threading.Barrier(3, timeout=60)

        def complete(
            self, dialogues: Sequence[Sequence[Message]], max_new_tokens: int, tools: Sequence[str]
        ) -> list[str | None]:
            self.most += 1
            if sum(message.trained for message in dialogues[0]):
                self.together.wait()
                return super().complete(dialogues, max_new_tokens, tools)
            return ["Hm.\nAction: Operation\n```sql\nSELECT 1\n```"]

    policy = Meeting()
    found = concurrently(TASKS[:3], policy, 3, lambda: 1 + policy.most)
    assert [trajectory.num_rounds for trajectory in found] == [2, 2, 2]
