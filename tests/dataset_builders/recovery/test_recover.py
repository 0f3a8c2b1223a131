"""Recovery splices of real collections: database and an environment of tools."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.collection.folder import state_path
from dataset_builders.environments import load_environment
from dataset_builders.errors import ConfigError, DataError, SourceNotFoundError
from dataset_builders.recovery.recover import RecoveryResult, recover
from dataset_builders.recovery.worlds import own_references
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from dataset_builders.sources.recovery_settings import RecoverSettings
from tests.support.failed_episodes import (
    BROKEN_SQL,
    WRONG_ANSWER,
    collect,
    failing_desk,
    noisy_database,
)

pytest.importorskip("openai")

DESK = Path(__file__).resolve().parents[3] / "examples/support_desk/support_desk.py"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("database")
    return folder, noisy_database(folder)


def settings(folder: Path, **changes: Any) -> RecoverSettings:
    return RecoverSettings(str(folder), **changes)


def trained(result: RecoveryResult) -> list[list[str]]:
    return [[m.content for m in c.messages if m.trained] for c in result.conversations]


def test_failed_turns_stay_without_loss_and_the_world_rewards_the_rest(
    database: tuple[Path, dict[str, str]],
) -> None:
    folder, _ = database
    result = recover(settings(folder))
    counts = result.report["database"]
    assert counts == {
        "episodes": 12, "solved": 3, "unfinished": 0, "failed": 9, "made": 6, "one_turn": 3,
        "splices": 6, "continued_by_oracle": 6, "replays": 6, "other_numbers": 0,
    }  # fmt: skip
    for row in result.conversations:
        own = [m for m in row.messages if m.role == "assistant"][1:]
        assert [m.trained for m in own] == [False, True, True]
        assert row.source == "recovered"
        assert row.reward == 1
        # What is trained solves the task from the state that the failed turn left.
        assert WRONG_ANSWER not in [m.content for m in own]
        prefix = own[0].content
        assert prefix == BROKEN_SQL or "SELECT 1" in prefix
        observation = row.messages[row.messages.index(own[0]) + 1]
        assert observation.role == "user"
        assert ("error" in observation.content) == (prefix == BROKEN_SQL)
    assert len({row.id for row in result.conversations}) == 6


def test_a_kept_episode_of_another_collection_continues(
    database: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    folder, _ = database
    with pytest.raises(DataError, match="not_recoverable 6"):
        recover(settings(folder, continuation="kept"))  # No task of it was solved twice.
    world = load_environment("database")
    solver = oracle_turns(world, list(world.task_ids("train")[:12]))
    collect(tmp_path, world, list(world.task_ids("train")[:12]), solver)
    result = recover(settings(folder, continuation="kept", good=str(tmp_path)))
    assert result.report["database"]["continued_by_kept"] == 6
    recorded = {turn for turns in solver.turns.values() for turn in turns}
    assert {turn for turns in trained(result) for turn in turns} <= recorded


def oracle_turns(world: Any, tasks: list[str]) -> Any:

    solved = play(world, tasks, OraclePolicy())
    turns = {t.messages[2].content: [m.content for m in t.messages if m.trained] for t in solved}

    def reply(messages: list[dict[str, Any]]) -> str:
        spoken = sum(each["role"] == "assistant" for each in messages) - 1
        return turns[messages[2]["content"]][spoken]

    reply.turns = turns  # type: ignore[attr-defined]
    return reply


def changing_task() -> tuple[str, str]:
    """A training task that inserts a row, and its table."""
    world = load_environment("database").world()
    for task in world.task_ids("train"):
        problem = world.problem(task)  # type: ignore[attr-defined]
        if problem.changes and "INSERT" in problem.sql:
            (table,) = problem.tables
            return task, table.name
    raise AssertionError


def test_last_recoverable_goes_back_before_the_damage(tmp_path: Path) -> None:
    task, table = changing_task()

    def damaging(messages: list[dict[str, Any]]) -> str:
        turn = sum(each["role"] == "assistant" for each in messages) - 1
        sql = ["SELECT 1", f'DELETE FROM "{table}"'][turn] if turn < 2 else ""
        return f"Hm.\nAction: Operation\n```sql\n{sql}\n```" if sql else WRONG_ANSWER

    collect(tmp_path, load_environment("database"), [task], damaging)
    result = recover(settings(tmp_path, at="last_recoverable"))
    assert (result.report["database"]["replays"], len(result.conversations)) == (2, 1)
    (row,) = result.conversations
    assert row.id.endswith("-after-1")
    assert "DELETE" not in "".join(m.content for m in row.messages)
    with pytest.raises(DataError, match="not_recoverable 1"):
        recover(settings(tmp_path, at="last_recoverable", max_tries=1))
    drawn = [recover(settings(tmp_path, at="random", seed=s)) for s in (0, 0, 1)]
    assert drawn[0].conversations == drawn[1].conversations
    assert {len(each.conversations) for each in drawn} == {1}


def test_an_episode_whose_world_answers_otherwise_is_not_replayable(tmp_path: Path) -> None:
    noisy_database(tmp_path, 2)
    path = state_path(tmp_path, "database")
    with closing(sqlite3.connect(path)) as state, state:
        for task, text in state.execute("SELECT task_id, trajectory FROM attempts").fetchall():
            changed = text.replace("syntax error", "a different message")
            state.execute("UPDATE attempts SET trajectory=? WHERE task_id=?", (changed, task))
    with pytest.raises(DataError, match="not_replayable 1"):
        recover(settings(tmp_path))


def test_tool_calls_of_an_own_environment(tmp_path: Path) -> None:
    desk = load_environment(f"{DESK}:SupportDesk")
    collect(tmp_path, desk, list(desk.task_ids("train")[:4]), failing_desk)
    with pytest.raises(ConfigError, match=r"support_desk: found no environment.*SupportDesk"):
        recover(settings(tmp_path))
    with pytest.raises(ConfigError, match=r"was played with support_desk.py:SupportDesk"):
        recover(settings(tmp_path, environment="tests.support.account:AccountDialogue"))
    result = recover(settings(tmp_path, environment=f"{DESK}:SupportDesk"))
    counts = result.report["support_desk"]
    assert (counts["failed"], counts["made"], counts["continued_by_oracle"]) == (
        3,
        3,
        3,
    )  # One is rightly refused.
    for row in result.conversations:
        calls = [(c.name, m.trained) for m in row.messages for c in m.tool_calls]
        assert calls[:2] == [("find_orders", False), ("find_orders", True)]
        assert calls[-1] == ("close_ticket", True)
        assert json.loads(row.tools)
        results = {m.tool_call_id for m in row.messages if m.role == "tool"}
        assert len(results) == len(calls)  # No call of the continuation repeats an id.


def test_environments_whose_code_may_change_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their code is part of what splices are made of; a file has to be named."""
    (tmp_path / "desk_of_a_team.py").write_bytes(Path(DESK).read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    for number, reference in enumerate((f"{DESK}:SupportDesk", "desk_of_a_team:SupportDesk")):
        folder, spec = tmp_path / str(number), load_environment(reference)
        collect(folder, spec, list(spec.task_ids("train")[:1]), failing_desk)
        named = own_references(settings(folder, environment=reference))
        assert named == {"support_desk": reference}
    assert own_references(settings(tmp_path / "0")) == {}
    assert own_references(settings(tmp_path / "1")) == named


def test_what_cannot_be_replayed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="found no collection/"):
        recover(settings(tmp_path))
    noisy_database(tmp_path, 2)
    path = state_path(tmp_path, "database")
    with closing(sqlite3.connect(path)) as state, state:
        state.execute("UPDATE settings SET value='\"mind2web\"' WHERE name='environment'")
    with pytest.raises(ConfigError, match="mind2web: cannot be recovered: the model is shown"):
        recover(settings(tmp_path))
    with closing(sqlite3.connect(path)) as state, state:
        state.execute("UPDATE settings SET value='\"database\"' WHERE name='environment'")
        state.execute("UPDATE settings SET value='\"own:00000000\"' WHERE name='prompt'")
    with pytest.raises(ConfigError, match="was played with own:00000000"):
        recover(settings(tmp_path))


def test_a_later_attempt_of_the_same_policy_continues(tmp_path: Path) -> None:
    world = load_environment("database")
    tasks = list(world.task_ids("train")[:3])
    solver, begun = oracle_turns(world, tasks), Counter[str]()

    def second_time_right(messages: list[dict[str, Any]]) -> str:
        question = messages[2]["content"]
        turn = sum(each["role"] == "assistant" for each in messages) - 1
        begun[question] += turn == 0
        if begun[question] == 1:
            return WRONG_ANSWER if turn else BROKEN_SQL
        return str(solver(messages))

    collect(tmp_path, world, tasks, second_time_right, attempts=2, max_concurrency=1)
    result = recover(settings(tmp_path, continuation="kept"))
    counts = result.report["database"]
    assert (counts["episodes"], counts["solved"], counts["continued_by_kept"]) == (6, 3, 3)
    assert [row.id.split("-", 1)[1] for row in result.conversations] == ["0-after-1"] * 3
