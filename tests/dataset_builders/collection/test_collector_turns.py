"""Turns that a collector filters, cuts, replays or adds thoughts to."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.collection.collector import run, state_path
from dataset_builders.errors import ConfigError
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.policy import Policy
from tests.dataset_builders.collection.test_collector import config, endings
from tests.support.endpoint import ANSWER, SELECT, Endpoint, Fault, Messages, serving

pytest.importorskip("openai")


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
