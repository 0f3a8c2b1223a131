"""Episodes that are played apart: none waits for another's turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from dataset_builders.conversation import Message
from dataset_builders.environments import load_environment
from dataset_builders.errors import ConfigError, EndpointError
from dataset_builders.rollouts.apart import play_apart
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.rollout import play
from dataset_builders.rollouts.table import Table

DATABASE = load_environment("database")
TASKS = DATABASE.task_ids("train")[:12]


class Answering:
    """Says the same at once, but waits with the first task's turns for the others' end."""

    def __init__(self, held: str = "") -> None:
        self.held, self.others_ended = held, threading.Event()
        self.most = self._now = 0
        self._lock = threading.Lock()

    def complete(
        self, dialogues: Sequence[Sequence[Message]], max_new_tokens: int
    ) -> list[str | None]:
        with self._lock:
            self._now += len(dialogues)
            self.most = max(self.most, self._now)
        if self.held and self.held in dialogues[0][-1].content:
            assert self.others_ended.wait(60)
        with self._lock:
            self._now -= len(dialogues)
        return ["Hm.\nAction: Answer\nFinal Answer: [1]" for _ in dialogues]


def test_a_slow_turn_holds_no_other_episode() -> None:
    expected = play(DATABASE, TASKS, Answering())
    asked = [m.content for m in expected[0].messages if m.role == "user"][-1]
    policy, ended = Answering(asked), list[str]()

    def progress(trajectory: Trajectory) -> None:
        ended.append(trajectory.task_id)
        if len(ended) == len(TASKS) - 1:
            policy.others_ended.set()

    found = play_apart(DATABASE, TASKS, policy, ceiling=4, most=lambda: 4, on_progress=progress)
    assert found == expected
    assert ended[-1] == TASKS[0]


def test_no_more_are_in_play_than_are_borne() -> None:
    for ceiling, borne in ((2, 50), (50, 3)):
        policy = Answering()
        play_apart(DATABASE, TASKS, policy, ceiling=ceiling, most=lambda n=borne: n)  # type: ignore[misc]
        assert policy.most <= min(ceiling, borne)


def test_what_the_policy_raises_ends_all() -> None:
    class Dead(Answering):
        def complete(
            self, dialogues: Sequence[Sequence[Message]], max_new_tokens: int
        ) -> list[str | None]:
            raise EndpointError("down")

    with pytest.raises(EndpointError, match="down"):
        play_apart(DATABASE, TASKS, Dead(), ceiling=4, most=lambda: 4)
    with pytest.raises(ConfigError, match="batch_size"):
        play_apart(DATABASE, TASKS, Answering(), ceiling=0, most=lambda: 4)


def test_a_task_that_is_unknown_is_named() -> None:
    with pytest.raises(ConfigError, match="database-train-x"):
        play_apart(DATABASE, ["database-train-x"], Answering(), ceiling=2, most=lambda: 2)


def test_environments_are_closed_when_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Table[object]] = []
    closed: list[Table[object]] = []
    make, close = Table.__init__, Table.close

    def begin(table: Table[object], *arguments: Any) -> None:
        opened.append(table)
        make(table, *arguments)

    def slow(table: Table[object]) -> None:
        time.sleep(0.2)
        close(table)
        closed.append(table)

    monkeypatch.setattr(Table, "__init__", begin)
    monkeypatch.setattr(Table, "close", slow)
    play_apart(DATABASE, TASKS[:4], Answering(), ceiling=2, most=lambda: 2)
    assert opened
    assert len(closed) == len(opened)

    def failing(trajectory: Trajectory) -> None:
        raise EndpointError("down")

    with pytest.raises(EndpointError, match="down"):
        play_apart(DATABASE, TASKS[:4], Answering(), ceiling=2, most=lambda: 2, on_progress=failing)
    assert len(closed) == len(opened)
