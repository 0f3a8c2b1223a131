"""A collection that an earlier version was interrupted in goes on, and pays for nothing twice."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from dataset_builders.collection.collector import run, state_path
from dataset_builders.collection.engine import RolloutConfig
from dataset_builders.collection.settings import CollectConfig
from dataset_builders.endpoints.endpoint import Endpoint as Model
from dataset_builders.environments import load_environment
from dataset_builders.errors import ConfigError
from dataset_builders.instructions.thoughts import ThoughtAdder
from tests.support.endpoint import ANSWER, SELECT, Endpoint, Messages, serving

pytest.importorskip("openai")

OLD = Path(__file__).parents[2] / "assets/saved/interrupted"
"""Made at 31593c9: six tasks of three turns each, of which three have ended and the others
were left after two, one and one turns by a limit on tokens."""


def reply(messages: Messages) -> str:
    return SELECT if sum(each["role"] == "assistant" for each in messages) < 3 else ANSWER


def replies(out: Path) -> dict[str, str]:
    with closing(sqlite3.connect(state_path(out, "database"))) as database:
        return dict(database.execute("SELECT key, reply FROM responses"))


def test_an_interrupted_collection_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    out = shutil.copytree(OLD, tmp_path / "collected")
    spec, paid = load_environment("database"), replies(out)
    endpoint = Endpoint(reply)
    with serving(endpoint):
        play = RolloutConfig(spec, Model("m", endpoint.url), max_concurrency=3)
        config = CollectConfig(play, out, 6)
        with pytest.raises(ConfigError, match="min_reward: this collection was started with"):
            run(config)
        with pytest.raises(ConfigError, match="seed"):
            run(replace(config, seed=1), finish=ThoughtAdder(spec))
        report = run(config, finish=ThoughtAdder(spec))
    assert endpoint.counts.total() == 18 - len(paid) == 5
    assert (report["done"], report["session"]["ended"], report["requests"]) == (6, 3, 18)
    assert report["dropped"] == {"reward_below_threshold": 6}
    now = replies(out)
    assert {key: now[key] for key in paid} == paid
