"""Collections from beginning to end, with a loopback endpoint and the database."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dataset_builders.collection.collector import run, state_path
from dataset_builders.collection.engine import CollectionEngine, RolloutConfig
from dataset_builders.collection.progress import CollectionProgress
from dataset_builders.collection.settings import CollectConfig
from dataset_builders.collection.store import SqliteRolloutLog
from dataset_builders.endpoints.endpoint import Endpoint as Model
from dataset_builders.endpoints.pricing import Price, PriceTable
from dataset_builders.endpoints.requests import Sampling
from dataset_builders.environments import HELD_IN, load_environment
from dataset_builders.environments.base import StepResult
from dataset_builders.environments.database.dialogue import DatabaseDialogue
from dataset_builders.environments.database.environment import DatabaseEnvironment
from dataset_builders.errors import ConfigError, EndpointError
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.ledger import AttemptResult
from dataset_builders.rollouts.limits import Limits
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.playing import agree
from dataset_builders.rollouts.policy import OraclePolicy, Policy
from dataset_builders.sources.loading import SourceSpec, load_source
from tests.support.endpoint import ANSWER, SELECT, Endpoint, Fault, Messages, serving

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


@pytest.fixture(scope="module")
def solver() -> Callable[[Messages], str]:
    """Knows the oracle's turns."""
    ids = DATABASE.task_ids("train")
    solutions = {
        each.messages[3 - 1].content: [m.content for m in each.messages if m.trained]
        for each in play(DATABASE, ids, OraclePolicy())
    }

    def reply(messages: Messages) -> str:
        turn = sum(each["role"] == "assistant" for each in messages) - 1
        return solutions[messages[2]["content"]][turn]

    return reply


def test_the_oracle_needs_no_endpoint(tmp_path: Path) -> None:
    report = run(config(tmp_path, None, 20))
    assert (report["done"], report["kept"], report["cost"], report["requests"]) == (20, 20, 0, 0)
    loaded = load_source(SourceSpec(str(tmp_path), "agentinstruct")).conversations
    assert len(loaded) == 20
    assert all(sum(m.trained for m in each.messages) == 2 for each in loaded)


DRAFT = "Perhaps\nAction: Operation\n```sql\nDELETE FROM x\n```\nno."


@pytest.mark.parametrize("apart", [True, False])
def test_a_thinking_model_is_played_by_what_it_says(
    tmp_path: Path, solver: Callable[..., str], apart: bool
) -> None:
    def reply(messages: Messages) -> str | dict[str, object]:
        said = solver(messages)
        if apart:
            return {"content": said, "reasoning_content": DRAFT}
        return f"<think>\n{DRAFT}\n</think>\n\n{said}"

    with serving(Endpoint(reply)) as server:
        report = run(config(tmp_path, server.url, 4))
    assert report["kept"] == 4
    assert all("DELETE FROM x" not in str(request["messages"]) for request in server.requests)
    (ending, *_) = endings(tmp_path)
    turns = [message for message in ending.trajectory.messages if message.trained]
    assert {turn.reasoning for turn in turns} == {DRAFT}
    assert not any("DELETE" in turn.content for turn in turns)
    # Both shapes on disk keep the thoughts.
    for kind in ("jsonl", "messages"):
        (file,) = (tmp_path / kind).glob("*.jsonl")
        assert all(line.count("DELETE FROM x") == 2 for line in file.read_text().splitlines())


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


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(steps=2), "step_limit"),
        (Limits(tokens=400), "token_limit"),
        (Limits(cost=0.0005), "cost_limit"),
        (Limits(seconds=0.3), "time_limit"),
    ],
)
def test_limits_end_episodes_by_name(tmp_path: Path, limits: Limits, reason: str) -> None:
    endpoint = Endpoint(lambda messages: SELECT, latency=0.06)
    with serving(endpoint):
        report = run(config(tmp_path, endpoint.url, 3, limits=limits, prices=PRICES, min_reward=0))
    assert report["dropped"] == {reason: 3}
    for ending in endings(tmp_path):
        assert 1 <= ending.trajectory.num_rounds < 15
        assert ending.trajectory.reward == 0


def test_the_runs_limit_on_cost_leaves_open_what_a_higher_one_ends(tmp_path: Path) -> None:
    endpoint = Endpoint(lambda messages: SELECT)
    with serving(endpoint):
        whole = config(tmp_path, endpoint.url, 8, prices=PRICES)
        low = replace(whole, limits=Limits(cost=0.004))
        report = run(low)
        assert report["stopped"] == "run_cost_limit"
        assert report["open"] > 0
        # At most the requests that were in flight go beyond.
        assert 0.004 <= report["cost"] < 0.004 + 4 * 0.0015
        assert run(low)["requests"] == report["requests"]
        end = run(whole)
    assert (end["open"], end["stopped"]) == (0, "")
    assert max(endpoint.counts.values()) == 1


def test_a_limit_on_cost_counts_what_was_paid_before_prices_were_known(tmp_path: Path) -> None:
    endpoint = Endpoint(lambda messages: ANSWER)
    with serving(endpoint):
        assert run(config(tmp_path, endpoint.url, 2))["cost"] is None
        more = replace(config(tmp_path, endpoint.url, 8, prices=PRICES), limits=Limits(cost=1e-6))
        report = run(more)
    assert (report["stopped"], report["requests"]) == ("run_cost_limit", 2)
    tokens = report["prompt_tokens"], report["completion_tokens"]
    assert report["cost"] == pytest.approx((tokens[0] + 2 * tokens[1]) / 1e6)


def test_a_limit_on_cost_is_refused_where_earlier_replies_tell_no_tokens(tmp_path: Path) -> None:
    endpoint = Endpoint(lambda messages: ANSWER, usage=False)
    with serving(endpoint):
        run(config(tmp_path, endpoint.url, 2))
        more = replace(config(tmp_path, endpoint.url, 8, prices=PRICES), limits=Limits(cost=1.0))
        with pytest.raises(ConfigError, match="2 replies"):
            run(more)


def test_a_limit_reached_with_the_last_reply_stops_nothing(tmp_path: Path) -> None:
    endpoint = Endpoint(lambda messages: ANSWER)
    with serving(endpoint):
        whole = replace(config(tmp_path, endpoint.url, 1), limits=Limits(tokens=1))
        for _ in range(2):
            report = run(whole)
            assert (report["done"], report["open"], report["stopped"]) == (1, 0, "")


def test_a_filtered_turn_is_no_turn_after_a_kill(tmp_path: Path) -> None:
    filtered = {"choices": [{"message": {"content": ANSWER}, "finish_reason": "content_filter"}]}
    endpoint = Endpoint(lambda messages: "", lambda n: Fault(body=json.dumps(filtered).encode()))
    with serving(endpoint):
        first = run(config(tmp_path, endpoint.url, 1))
        assert first["dropped"] == {"refused_by_endpoint": 1}
        # As a kill leaves it between the paid reply and the end of its episode.
        with closing(sqlite3.connect(state_path(tmp_path, "database"))) as database, database:
            database.execute("DELETE FROM attempts")
            database.execute("UPDATE tasks SET final_attempt = NULL")
        again = run(config(tmp_path, endpoint.url, 1))
    assert (again["dropped"], again["requests"]) == (first["dropped"], 1)


@pytest.mark.parametrize("kept", [False, True])
def test_turns_cut_at_the_token_limit_are_counted_and_not_kept(
    tmp_path: Path, solver: Callable[..., str], kept: bool
) -> None:
    def reply(messages: Messages) -> dict[str, Any]:
        # The last turn of half of the tasks is cut, as behind its answer.
        cut = len(solver(messages)) % 2
        return {"content": solver(messages), "finish_reason": "length" if cut else "stop"}

    endpoint = Endpoint(reply)
    filters = ("no_cut_turns=1000",) if kept else ()
    with serving(endpoint):
        report = run(replace(config(tmp_path, endpoint.url, 8), filters=filters))
        again = run(replace(config(tmp_path, endpoint.url, 8), filters=filters))
    cut = [ending.trajectory.cut_turns for ending in endings(tmp_path)]
    assert 0 < sum(map(bool, cut)) < 8
    assert report["cut_turns"] == again["cut_turns"] == sum(cut)
    dropped = 0 if kept else sum(map(bool, cut))
    assert report["dropped"] == ({} if kept else {"cut_turns": dropped})
    rows = (tmp_path / "jsonl/db.jsonl").read_text("utf-8").splitlines()
    assert len(rows) == report["kept"] == 8 - dropped
    assert f"| Turns cut at the token limit | {sum(cut)} |" in (tmp_path / "README.md").read_text(
        "utf-8"
    )


def test_thoughts_are_added_by_one_threshold(tmp_path: Path) -> None:
    class Unchanged:
        name = "unchanged"

        async def __call__(self, policy: Policy, trajectory: Trajectory) -> Trajectory:
            return trajectory

        def outcomes(self, *given: object) -> dict[str, int]:
            return {}

    finish: Any = Unchanged()
    endpoint = Endpoint(lambda messages: ANSWER)
    with serving(endpoint):
        run(config(tmp_path, endpoint.url, 2), finish=finish)
        # Those between the thresholds would be kept without thoughts.
        with pytest.raises(ConfigError, match="min_reward"):
            run(config(tmp_path, endpoint.url, 2, min_reward=0.0), finish=finish)


def test_a_turn_too_long_to_show_is_replayed(tmp_path: Path) -> None:
    # All that the model is shown then is the first message, with a notice.
    long = "; " * 4000 + SELECT
    endpoint = Endpoint(lambda messages: ANSWER if "[NOTICE]" in messages[0]["content"] else long)
    with serving(endpoint):
        first = run(config(tmp_path, endpoint.url, 1))
        with closing(sqlite3.connect(state_path(tmp_path, "database"))) as database, database:
            database.execute("DELETE FROM attempts")
            database.execute("UPDATE tasks SET final_attempt = NULL")
        again = run(config(tmp_path, endpoint.url, 1))
    assert (again["dropped"], again["requests"]) == (first["dropped"], 2)


def test_the_runs_limit_on_time_drains(tmp_path: Path) -> None:
    endpoint = Endpoint(lambda messages: SELECT, latency=0.02)
    with serving(endpoint):
        report = run(replace(config(tmp_path, endpoint.url, 200), limits=Limits(seconds=0.5)))
    assert report["stopped"] == "run_time_limit"
    assert 0 < report["done"] < 200
    assert {ending.trajectory.exit_reason for ending in endings(tmp_path)} == {"round_limit"}


def test_limits_need_prices_and_counts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="price of m"):
        run(config(tmp_path / "a", "http://127.0.0.1:1/v1", limits=Limits(cost=1.0)))
    endpoint = Endpoint(lambda messages: ANSWER, usage=False)
    with serving(endpoint):
        with pytest.raises(EndpointError, match="does not report its token usage"):
            run(config(tmp_path / "b", endpoint.url, limits=Limits(tokens=1000)))
        assert run(config(tmp_path / "c", endpoint.url, prices=PRICES))["cost"] is None


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


def test_native_tool_calls_and_cached_tokens_are_counted(tmp_path: Path) -> None:
    call = {"content": None, "tool_calls": [{"id": "1", "type": "function"}]}
    told: list[int] = []

    def reply(messages: Messages) -> Any:
        told.append(len(messages))
        return dict(call) if len(told) % 2 else ANSWER

    endpoint = Endpoint(reply)
    with serving(endpoint):
        report = run(config(tmp_path, endpoint.url, 4, max_concurrency=1))
    assert report["replies_with_tool_calls"] == 2
    assert report["cached_tokens"] == 0
    assert sum(ending.trajectory.dropped_calls for ending in endings(tmp_path)) == 2
    # A later session counts those of earlier ones.
    with serving(endpoint):
        assert run(config(tmp_path, endpoint.url, 5))["replies_with_tool_calls"] >= 2


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
