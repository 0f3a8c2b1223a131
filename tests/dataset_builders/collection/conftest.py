"""Fixtures of the collector's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dataset_builders.environments import load_environment
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from tests.support.endpoint import Messages
from tests.support.noisy_collection import collect_noisy


@pytest.fixture(scope="module")
def solver() -> Callable[[Messages], str]:
    """Knows the oracle's turns."""
    database = load_environment("database")
    ids = database.task_ids("train")
    solutions = {
        each.messages[3 - 1].content: [m.content for m in each.messages if m.trained]
        for each in play(database, ids, OraclePolicy())
    }

    def reply(messages: Messages) -> str:
        turn = sum(each["role"] == "assistant" for each in messages) - 1
        return solutions[messages[2]["content"]][turn]

    return reply


@pytest.fixture(scope="session")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection of `noisy_collection`; not to be changed."""
    pytest.importorskip("openai")
    out = tmp_path_factory.mktemp("noisy") / "collected"
    collect_noisy(out)
    return out
