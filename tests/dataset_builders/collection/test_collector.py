"""Collections from beginning to end, with a loopback endpoint and the database."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.collection.collector import run, state_path
from dataset_builders.collection.engine import CollectionEngine, RolloutConfig
from dataset_builders.collection.progress import CollectionProgress
from dataset_builders.collection.settings import CollectConfig
from dataset_builders.collection.store import SqliteRolloutLog
from dataset_builders.endpoints.endpoint import Endpoint as Model
from dataset_builders.endpoints.pricing import Price, PriceTable
from dataset_builders.endpoints.requests import Sampling
from dataset_builders.environments import load_environment
from dataset_builders.errors import ConfigError
from dataset_builders.rollouts.ledger import AttemptResult
from dataset_builders.rollouts.limits import Limits
from dataset_builders.sources.loading import SourceSpec, load_source
from tests.support.endpoint import ANSWER, SELECT, Endpoint, Messages, serving

pytest.importorskip("openai")

DATABASE = load_environment("database")
PRICES = PriceTable({"m": Price(input=1.0, output=2.0)})


def config(out: Path, url: str | None, num_tasks: int = 6, **play: Any) -> CollectConfig:
    endpoint = None if url is None else Model("m", url, back_off=0.01, tries=3, timeout=30)
    given = {"environment": DATABASE, "endpoint": endpoint, "max_concurrency": 4}
    return CollectConfig(RolloutConfig(**(given | play)), out, num_tasks)


def endings(out: Path, environment: str = "database") -> list[AttemptResult]:
    store = SqliteRolloutLog(state_path(out, environment))
    try:
        return [ending for _, ending in store.endings()]
    finally:
        store.close()


def test_the_oracle_needs_no_endpoint(tmp_path: Path) -> None:
    report = run(config(tmp_path, None, 20))
    assert (report["done"], report["kept"], report["cost"], report["requests"]) == (20, 20, 0, 0)
    loaded = load_source(SourceSpec(str(tmp_path), "agentinstruct")).conversations
    assert len(loaded) == 20
    assert all(sum(m.trained for m in each.messages) == 2 for each in loaded)


def test_a_model_is_played_scored_and_paid(tmp_path: Path, solver: Callable[..., str]) -> None:
    def reply(messages: Messages) -> str:
        wrong = "rows" in messages[2]["content"]
        return ANSWER if wrong else solver(messages)

    endpoint = Endpoint(reply)
    with serving(endpoint):
        report = run(config(tmp_path, endpoint.url, 40, prices=PRICES))
    played = endings(tmp_path)
    assert report["done"] == len(played) == 40
    assert report["kept"] + report["dropped"]["reward_below_threshold"] == 40
    assert report["kept"] > 5
    assert report["requests"] == endpoint.counts.total() == sum(e.spent.requests for e in played)
    tokens = report["prompt_tokens"], report["completion_tokens"]
    assert tokens == (
        sum(e.spent.prompt_tokens for e in played),
        sum(e.spent.completion_tokens for e in played),
    )
    assert report["cost"] == pytest.approx((tokens[0] + 2 * tokens[1]) / 1e6)
    assert report["cost_per_kept"] == pytest.approx(report["cost"] / report["kept"])
    assert json.loads(state_path(tmp_path, "database").with_suffix(".json").read_text()) == report
    assert endpoint.most_in_flight <= 4


def test_what_has_ended_is_never_played_again(tmp_path: Path, solver: Callable[..., str]) -> None:
    endpoint = Endpoint(solver)
    with serving(endpoint):
        run(config(tmp_path, endpoint.url, 4))
        asked = endpoint.counts.total()
        again = run(config(tmp_path, endpoint.url, 4))
        assert endpoint.counts.total() == asked
        assert (again["done"], again["session"]["ended"]) == (4, 0)
        more = run(config(tmp_path, endpoint.url, 6))
        assert (more["done"], more["session"]["ended"]) == (6, 2)
    assert max(endpoint.counts.values()) == 1
    rows = (tmp_path / "jsonl/db.jsonl").read_text().splitlines()
    assert [json.loads(row)["id"] for row in rows] == [f"db_{n}" for n in range(6)]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sampling": Sampling(temperature=0.5)}, "temperature"),
        ({"endpoint": Model("other", "http://127.0.0.1:1/v1")}, "model"),
        ({"limits": Limits(tokens=100)}, "limit on tokens"),
        ({"attempts": 2}, "attempts"),
        ({"endpoint": None}, "model"),
    ],
)
def test_other_settings_are_refused_by_name(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    endpoint = Endpoint(lambda messages: ANSWER)
    with serving(endpoint):
        first = config(tmp_path, endpoint.url, 2)
        run(first)
        with pytest.raises(ConfigError, match=named):
            run(replace(first, play=replace(first.play, **change)))
        with pytest.raises(ConfigError, match="seed"):
            run(replace(first, seed=3))
        with pytest.raises(ConfigError, match="num_tasks"):
            run(replace(first, num_tasks=1))
        # What changes no data may change.
        run(replace(first, filters=("max_rounds=1",), play=replace(first.play, min_reward=0.0)))
    rows = (tmp_path / "jsonl/db.jsonl").read_text().splitlines()
    assert len(rows) == 2


def test_attempts_go_on_until_one_earns(tmp_path: Path, solver: Callable[..., str]) -> None:
    asked: dict[str, int] = {}

    def reply(messages: Messages) -> str:
        if len(messages) == 3:
            question = messages[2]["content"]
            asked[question] = asked.get(question, 0) + 1
            return ANSWER if asked[question] < 3 else solver(messages)
        return solver(messages)

    endpoint = Endpoint(reply)
    with serving(endpoint):
        report = run(config(tmp_path, endpoint.url, 5, attempts=4, sampling=Sampling(seed=10)))
    # A wrong answer may happen to be right, as where something is to be counted.
    assert report["kept"] == 5
    assert {ending.attempt for ending in endings(tmp_path)} <= {0, 1, 2}
    assert any(ending.attempt == 2 for ending in endings(tmp_path))
    assert {request["seed"] for request in endpoint.requests} == {10, 11, 12}


def test_a_signal_drains_and_a_second_one_stops(tmp_path: Path) -> None:
    def interrupt(times: int) -> Callable[[CollectionProgress, CollectionEngine], None]:
        def watch(tally: CollectionProgress, engine: CollectionEngine) -> None:
            for number in range(times):
                asyncio.get_running_loop().call_later(
                    0.4 + 0.1 * number, os.kill, os.getpid(), signal.SIGTERM
                )

        return watch

    endpoint = Endpoint(lambda messages: SELECT, latency=0.05)
    with serving(endpoint):
        drained = run(config(tmp_path / "a", endpoint.url, 100), watch=interrupt(1))
        assert drained["stopped"] == "interrupted"
        assert 0 < drained["done"] < 100
        played = endings(tmp_path / "a")
        assert {ending.trajectory.exit_reason for ending in played} == {"round_limit"}
        endpoint.counts.clear()
        with pytest.raises(KeyboardInterrupt):
            run(config(tmp_path / "b", endpoint.url, 8), watch=interrupt(2))
        assert endpoint.counts.total() > 4
        assert run(config(tmp_path / "b", endpoint.url, 8))["done"] == 8
    # What was in flight may be asked again, nothing else.
    assert endpoint.counts.total() - len(endpoint.counts) <= 4


def test_one_process_at_a_time(tmp_path: Path) -> None:
    store = SqliteRolloutLog(state_path(tmp_path, "database"))
    try:
        with pytest.raises(ConfigError, match="another process"):
            run(config(tmp_path, None))
    finally:
        store.close()


def test_evaluation_tasks_cannot_be_collected(tmp_path: Path) -> None:
    one = config(tmp_path, None)
    with pytest.raises(ConfigError, match="only 'train'"):
        run(replace(one, split="test"))
    with pytest.raises(ConfigError, match="database-test-0001"):
        run(replace(one, tasks=["database-train-0001", "database-test-0001"]))
    report = run(replace(one, tasks=["database-train-0007", "database-train-0003"]))
    assert report["done"] == 2
