"""The collector where an environment, its replay or a request fails."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dataset_builders.collection.collector import run, state_path
from dataset_builders.endpoints.endpoint import Endpoint as Model
from dataset_builders.environments import HELD_IN, load_environment
from dataset_builders.environments.base import StepResult
from dataset_builders.environments.database.dialogue import DatabaseDialogue
from dataset_builders.environments.database.environment import DatabaseEnvironment
from dataset_builders.errors import ConfigError, EndpointError
from dataset_builders.rollouts.limits import Limits
from dataset_builders.rollouts.playing import agree
from tests.dataset_builders.collection.test_collector import config, endings
from tests.support.endpoint import ANSWER, SELECT, Endpoint, Fault, Messages, serving

pytest.importorskip("openai")


def test_an_endpoint_that_refuses_stops_with_one_line_and_loses_nothing(tmp_path: Path) -> None:
    refused = Fault(401, body=b'{"error": {"message": "Incorrect API key"}}')
    endpoint = Endpoint(lambda messages: ANSWER, lambda n: refused if n >= 6 else None)
    with serving(endpoint):
        with pytest.raises(EndpointError, match="Incorrect API key") as error:
            run(config(tmp_path, endpoint.url, 20))
        assert "\n" not in str(error.value)
        ended = len(endings(tmp_path))
        assert 0 < ended <= 6
        endpoint.fault = lambda number: None
        assert run(config(tmp_path, endpoint.url, 20))["done"] == 20
    assert state_path(tmp_path, "database").exists()


class WanderingEnvironment(DatabaseEnvironment):
    """Says where it is, which is elsewhere each time."""

    name: ClassVar[str] = "wandering"
    words: ClassVar[str] = "process {}"
    made: ClassVar[int] = 0

    def _act(self, action: str) -> StepResult:
        outcome = super()._act(action)
        said = self.words.format(os.getpid() + WanderingEnvironment.made)
        return replace(outcome, observation=f"{said}: {outcome.observation}")

    def task_ids(self, split: str) -> tuple[str, ...]:
        return tuple(f"database-{split}-{n:04d}" for n in range(3))


class WanderingDialogue(DatabaseDialogue):
    world = WanderingEnvironment

    @classmethod
    def own_prompt(cls) -> Any:
        return DatabaseDialogue.own_prompt()


@pytest.mark.parametrize(("words", "reason"), [("process {}", "round_limit"), ("", "diverged")])
def test_replay_bears_other_numbers_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, reason: str
) -> None:
    monkeypatch.setitem(HELD_IN, "wandering", f"{__name__}:WanderingDialogue")
    monkeypatch.setattr(WanderingEnvironment, "words", words or "before")
    endpoint = Endpoint(lambda messages: SELECT)
    with serving(endpoint):
        spec = load_environment("wandering")
        whole = config(tmp_path, endpoint.url, 3, environment=spec)
        cut = replace(whole, limits=Limits(tokens=3000))
        assert run(cut)["open"] == 3
        asked = endpoint.counts.copy()
        monkeypatch.setattr(WanderingEnvironment, "made", 1)
        monkeypatch.setattr(WanderingEnvironment, "words", words or "after")
        report = run(whole)
    assert report["done"] == 3
    played = [ending.trajectory for ending in endings(tmp_path, "wandering")]
    if words:
        assert {each.exit_reason for each in played} == {"round_limit"}
        first, second = os.getpid(), os.getpid() + 1
        for each in played:
            # What the model was shown then, and what it is shown now.
            seen = [int(n) for n in re.findall(r"process (\d+)", str(each.messages))]
            assert set(seen) == {first, second}
            assert seen == sorted(seen)
    else:
        assert {each.exit_reason for each in played} == {"replay_diverged"}
        assert report["dropped"] == {"replay_diverged": 3}
    assert all(endpoint.counts[key] == 1 for key in asked)


def test_numbers_alone_are_agreement() -> None:
    assert agree("pid 17 at 10:32", "pid 4711 at 9:00")
    assert not agree("pid 17", "pid 17 is gone")


class HungEnvironment(DatabaseEnvironment):
    name: ClassVar[str] = "hung"
    isolation = "thread"

    def task_ids(self, split: str) -> tuple[str, ...]:
        return tuple(f"database-{split}-{n:04d}" for n in range(20))

    def _act(self, action: str) -> StepResult:
        time.sleep(0.02)
        self.where = getattr(self, "where", threading.get_ident())
        assert self.where == threading.get_ident()
        if "DROP" in action:
            raise OSError("the disk is gone")
        return super()._act(action)


class HungDialogue(DatabaseDialogue):
    world = HungEnvironment

    @classmethod
    def own_prompt(cls) -> Any:
        return DatabaseDialogue.own_prompt()


def test_threads_keep_their_environments_and_one_that_breaks_ends_one_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(HELD_IN, "hung", f"{__name__}:HungDialogue")

    def reply(messages: Messages) -> str:
        drop = "rows" in messages[2]["content"] and len(messages) > 5
        return SELECT.replace("SELECT 1", "DROP TABLE x") if drop else SELECT

    endpoint = Endpoint(reply)
    with serving(endpoint):
        spec = load_environment("hung")
        report = run(config(tmp_path, endpoint.url, 20, environment=spec, max_concurrency=8))
    broken = report["dropped"]["environment_error"]
    assert 0 < broken < 20
    assert report["dropped"] == {"environment_error": broken, "round_limit": 20 - broken}
    errors = {e.trajectory.error for e in endings(tmp_path, "hung")}
    assert errors == {"", "OSError: the disk is gone"}
    assert not [t for t in threading.enumerate() if t.name == "environment" and _alive(t)]


def _alive(thread: threading.Thread) -> bool:
    thread.join(2)
    return thread.is_alive()


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize("place", ["first", "last"])
def test_a_task_that_is_always_refused_alone_does_not_stop_the_run(
    tmp_path: Path, status: int, place: str
) -> None:
    order: list[str] = []

    def fault(number: int) -> Fault | None:
        asked = endpoint.requests[-1]["messages"][-1]["content"]
        if asked not in order:
            order.append(asked)
        wanted = 0 if place == "first" else 4
        refused = len(order) > wanted and asked == order[wanted]
        return Fault(status, body=b'{"error": {"message": "odd"}}') if refused else None

    endpoint = Endpoint(lambda messages: ANSWER, fault)
    with serving(endpoint):
        report = run(config(tmp_path, endpoint.url, 5, max_concurrency=1))
    assert report["done"] == 5
    reason = "bad_request" if status == 400 else "endpoint_error"
    assert report["dropped"][reason] == 1


@pytest.mark.parametrize("told", ["unknown setting", "maximum context length is 1 token"])
def test_several_tasks_that_are_refused_stop_the_run_and_stay_open(
    tmp_path: Path, told: str
) -> None:
    body = json.dumps({"error": {"message": told}}).encode()
    endpoint = Endpoint(lambda messages: ANSWER, lambda n: Fault(400, body=body))
    with serving(endpoint):
        with pytest.raises(EndpointError, match=rf"{told}.*3 different tasks"):
            run(config(tmp_path, endpoint.url, 20, max_concurrency=2))
        assert endpoint.counts.total() <= 4
        assert not endings(tmp_path)
        endpoint.fault = lambda number: None
        assert run(config(tmp_path, endpoint.url, 20))["done"] == 20


def test_the_last_open_task_ends_where_an_earlier_session_was_answered(tmp_path: Path) -> None:
    endpoint = Endpoint(lambda messages: ANSWER)
    with serving(endpoint):
        run(config(tmp_path, endpoint.url, 3))
        endpoint.fault = lambda number: Fault(400, body=b'{"error": {"message": "odd"}}')
        assert run(config(tmp_path, endpoint.url, 4))["dropped"]["bad_request"] == 1
        endpoint.fault = lambda number: Fault(500, body=b"{}")
        with pytest.raises(EndpointError, match=r"task database-train-.*stays open"):
            run(config(tmp_path, endpoint.url, 5))
        endpoint.fault = lambda number: None
        assert run(config(tmp_path, endpoint.url, 5))["done"] == 5


def test_a_mistyped_model_does_not_lock_the_folder(tmp_path: Path) -> None:
    unknown = Fault(404, body=b'{"error": {"message": "the model `typo` does not exist"}}')
    endpoint = Endpoint(
        lambda messages: ANSWER,
        lambda n: unknown if endpoint.requests[n]["model"] == "typo" else None,
    )
    with serving(endpoint):
        mistyped = config(tmp_path, endpoint.url, 9)
        mistyped = replace(
            mistyped, play=replace(mistyped.play, endpoint=Model("typo", endpoint.url))
        )
        with pytest.raises(EndpointError, match="does not exist"):
            run(mistyped)
        assert run(config(tmp_path, endpoint.url, 4))["done"] == 4
        with pytest.raises(ConfigError, match=r"model: this collection was started with 'm'"):
            run(replace(mistyped, num_tasks=4))
