"""Collections of dialogues with tools, over HTTP, from the first request to rows."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dataset_builders.collection.collector import run
from dataset_builders.collection.engine import RolloutConfig
from dataset_builders.collection.folder import state_path
from dataset_builders.collection.settings import CollectConfig
from dataset_builders.collection.store import SqliteRolloutLog
from dataset_builders.conversation import Conversation
from dataset_builders.endpoints.endpoint import Endpoint as Model
from dataset_builders.environments import load_environment
from dataset_builders.errors import ConfigError, EndpointError
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import SourceSpec, load_source
from tests.support.account import ACCOUNT, account
from tests.support.endpoint import Endpoint, Fault, Messages, serving

pytest.importorskip("openai")
pytestmark = pytest.mark.usefixtures("account")

__all__ = ["account"]


def config(out: Path, url: str | None, **settings: Any) -> CollectConfig:
    endpoint = None if url is None else Model("m", url, back_off=0.01, tries=3, timeout=30)
    play = RolloutConfig(ACCOUNT, endpoint, max_concurrency=2)
    return CollectConfig(play, out, **settings)


def native(name: str, arguments: Any, id: str = "") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def payer(messages: Messages) -> dict[str, Any]:
    """Pay one coin a turn, then close."""
    wanted = int(messages[1]["content"].split()[-1].rstrip("."))
    paid = sum(message["role"] == "tool" for message in messages)
    call = native("pay", '{"coins": 1}') if paid < wanted else native("close", {}, "mine")
    return {"content": None, "tool_calls": [call], "reasoning_content": "Hm."}


def loaded(out: Path) -> list[Conversation]:
    source = resolve_source(SourceSpec(str(out)))
    assert source.spec.format == "messages"  # as detected: builders have no special case
    return list(load_source(source).conversations)


def trajectories(out: Path) -> list[Trajectory]:
    store = SqliteRolloutLog(state_path(out, "account"))
    try:
        return [ending.trajectory for _, ending in store.endings()]
    finally:
        store.close()


def test_kept_trajectories_are_messages_with_tools(tmp_path: Path) -> None:
    with serving(Endpoint(payer)) as server:
        report = run(config(tmp_path, server.url))
    assert (report["done"], report["kept"], report["dropped"]) == (3, 3, {})
    assert report["tool_calls"] == {"calls": 1 + 2 + 3 + 3}
    assert report["replies_with_tool_calls"] == 0
    rows = {row.where.rpartition(":")[2]: row for row in loaded(tmp_path)}
    assert len(rows) == 3
    for row in rows.values():
        assert [t["function"]["name"] for t in json.loads(row.tools)] == ["pay", "look", "close"]
        assert (row.task, row.model) == ("account", "m")
        calls = [message.tool_calls for message in row.messages if message.role == "assistant"]
        results = [message for message in row.messages if message.role == "tool"]
        assert [c.id for (c,) in calls] == [*(f"call_{n}_0" for n in range(len(results))), "mine"]
        assert [m.tool_call_id for m in results] == [c.id for (c,) in calls][:-1]
        assert {m.name for m in results} == {"pay"}
        assert all(m.trained == (m.role == "assistant") for m in row.messages)
        assert {m.reasoning for m in row.messages if m.trained} == {"Hm."}
    # Parquet and JSON Lines hold the same rows, and nothing claims to be AgentInstruct's.
    lines = (tmp_path / "messages" / "account.jsonl").read_text().splitlines()
    (file,) = (tmp_path / "data").glob("*.parquet")
    table = pq.read_table(file).to_pylist()
    for row in table:  # Parquet has null for an absent field.
        row["messages"] = [
            {name: value for name, value in message.items() if value is not None}
            for message in row["messages"]
        ]
    assert table == [json.loads(line) for line in lines]
    assert not (tmp_path / "jsonl").exists()
    card = json.loads((tmp_path / "card" / "account.json").read_text())
    assert card["call_counts"] == {"calls": 9}
    assert "| Tool calls | 9 |" in (tmp_path / "README.md").read_text()


def test_the_oracle_collects_the_same_rows(tmp_path: Path) -> None:
    report = run(config(tmp_path, None))
    assert (report["kept"], report["tool_calls"]) == (3, {"calls": 9})
    assert all(row.messages[2].content == "I pay." for row in loaded(tmp_path))


def test_calls_in_the_text_of_a_server_without_a_parser_are_played(tmp_path: Path) -> None:
    pytest.importorskip("transformers")

    def speller(messages: Messages) -> str:
        (call,) = payer(messages)["tool_calls"]
        function = call["function"]
        arguments = function["arguments"] or "{}"
        spelled = f'{{"name": "{function["name"]}", "arguments": {arguments}}}'
        return f"Now this.\n<tool_call>\n{spelled}\n</tool_call>\nThen I wait."

    with serving(Endpoint(speller)) as server:
        report = run(config(tmp_path, server.url))
    assert (report["kept"], report["tool_calls"]) == (3, {"calls": 9})
    turns = [m for row in loaded(tmp_path) for m in row.messages if m.role == "assistant"]
    assert {" ".join(turn.content.split()) for turn in turns} == {"Now this. Then I wait."}
    assert all(turn.tool_calls for turn in turns)


def wrong_then_right(messages: Messages) -> dict[str, Any]:
    """Make every mistake once, in the order of turns, then do the task."""
    turn = sum(message["role"] == "assistant" for message in messages)
    broken: list[dict[str, Any]] = [
        {"content": "Let me see.", "tool_calls": [native("pay", '{"coins": ')]},
        {"content": None, "tool_calls": [native("fly", "{}"), native("pay", '{"coins": "x"}')]},
        {"content": None, "reasoning_content": "Only thoughts."},
        {"content": "Now I pay.", "tool_calls": [native("pay", {"coins": 1})] * 10},
    ]
    if turn < len(broken):
        return broken[turn]
    return {"content": None, "tool_calls": [native("close", "")]}


def test_every_mistake_is_answered_and_counted(tmp_path: Path) -> None:
    with serving(Endpoint(wrong_then_right)) as server:
        report = run(config(tmp_path, server.url, num_tasks=1))
    assert report["done"] == 1
    assert report["tool_calls"] == {
        **{"calls": 2 + 10 + 1, "malformed_call": 1, "unknown_tool": 1},
        **{"invalid_arguments": 1, "no_call": 1},
    }
    (trajectory,) = trajectories(tmp_path)
    roles = [message.role for message in trajectory.messages]
    assert roles == [
        *("system", "user", "assistant", "user"),  # could not be read
        *("assistant", "tool", "tool"),
        *("assistant", "user"),  # nothing but thoughts
        *("assistant", *["tool"] * 10, "assistant"),
    ]
    stored = trajectory.messages[2]
    assert (stored.trained, stored.tool_calls) == (False, ())
    assert stored.content == 'Let me see.\n{"name": "pay", "arguments": {"coins": }'
    assert (trajectory.num_rounds, trajectory.valid_rounds) == (5, 2)
    # What the endpoint is sent agrees with the OpenAI format: each result names a call before it.
    for request in server.requests:
        open_ids: list[str] = []
        for message in request["messages"]:
            if message["role"] == "tool":
                open_ids.remove(message["tool_call_id"])
                continue
            assert not open_ids
            open_ids = [call["id"] for call in message.get("tool_calls", [])]
        assert not open_ids


@pytest.mark.parametrize(
    ("play", "task", "paid"),
    [
        *((payer, "a-train-3", paid) for paid in (1, 2, 3)),
        *((wrong_then_right, "a-train-1", paid) for paid in (1, 2, 3, 4)),
    ],
)
def test_a_resumed_run_replays_calls_and_pays_nothing_twice(
    tmp_path: Path, play: Callable[[Messages], dict[str, Any]], task: str, paid: int
) -> None:
    """The endpoint dies after some replies: those with errors, and one with ten results, too."""
    dead = [True]
    server = Endpoint(play, lambda n: Fault(401, body=b"{}") if dead[0] and n >= paid else None)
    with serving(server):
        with pytest.raises(EndpointError):
            run(config(tmp_path, server.url, tasks=[task]))
        dead[0] = False
        whole = 4 if play is payer else 5
        before = server.counts.total()
        run(config(tmp_path, server.url, tasks=[task]))
        assert server.counts.total() - before == whole - paid
        (trajectory,) = trajectories(tmp_path)
        run(config(tmp_path / "whole", server.url, tasks=[task]))
    assert trajectories(tmp_path / "whole") == [trajectory]


def test_recorded_calls_are_in_the_database(tmp_path: Path) -> None:
    with serving(Endpoint(wrong_then_right)) as server:
        run(config(tmp_path, server.url, num_tasks=1))
    with closing(sqlite3.connect(state_path(tmp_path, "account"))) as database:
        replies = [json.loads(text) for (text,) in database.execute("SELECT reply FROM responses")]
    assert [c["name"] for reply in replies for c in reply.get("tool_calls", [])].count("pay") == 11
    assert sum(len(reply.get("malformed", [])) for reply in replies) == 1


def test_an_endpoint_that_refuses_the_tools_stops_at_once(tmp_path: Path) -> None:
    body = json.dumps({"error": {"message": "Invalid schema for function 'pay'"}}).encode()
    refusing = Endpoint(payer, lambda number: Fault(400, body=body))
    with serving(refusing), pytest.raises(EndpointError, match="refuses the tool 'pay'"):
        run(config(tmp_path, refusing.url))
    assert refusing.counts.total() <= 4  # two in flight, each once more without a system message


@pytest.mark.parametrize("tools_first", [True, False])
def test_a_folder_holds_text_or_tools(tmp_path: Path, tools_first: bool) -> None:
    text = CollectConfig(RolloutConfig(load_environment("database")), tmp_path, 2)
    order: list[Callable[[], Any]] = [lambda: run(text), lambda: run(config(tmp_path, None))]
    first, second = reversed(order) if tools_first else order
    first()
    with pytest.raises(ConfigError, match=r"found dialogues with .*; name another `out`"):
        second()
