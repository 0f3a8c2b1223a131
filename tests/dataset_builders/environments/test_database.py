"""The generated database tasks and the conversation around them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from gymnasium.error import ResetNeeded
from hypothesis import given
from hypothesis import strategies as st

from dataset_builders.environments import load_environment
from dataset_builders.environments.base import OracleStep
from dataset_builders.environments.database.dialogue import MAX_OPERATIONS, DatabaseDialogue
from dataset_builders.environments.database.engine import SqliteDatabase
from dataset_builders.environments.database.environment import DatabaseEnvironment
from dataset_builders.environments.database.scoring import table_hash
from dataset_builders.environments.database.tasks import KINDS, SPLIT_SIZES, make_task
from dataset_builders.environments.database.themes import Theme, themes
from dataset_builders.errors import ConfigError

DATABASE = load_environment("database")
PARSER = DATABASE.make()  # Nothing starts before `reset`.


@pytest.fixture
def dialogue() -> Iterator[DatabaseDialogue]:
    made = DATABASE.make()
    assert isinstance(made, DatabaseDialogue)
    yield made
    made.close()


def play_turns(
    dialogue: DatabaseDialogue, task_id: str, turns: list[str]
) -> tuple[float, dict[str, Any]]:
    dialogue.reset(options={"task_id": task_id})
    for turn in turns:
        _, reward, terminated, truncated, info = dialogue.step(turn)
        if terminated or truncated:
            return reward, info
    return reward, info


def operation(sql: str) -> str:
    return f"Thought.\nAction: Operation\n```sql\n{sql}\n```"


def answer(*values: str) -> str:
    return f"Thought.\nAction: Answer\nFinal Answer: {json.dumps(values)}"


# Tasks


@pytest.mark.parametrize("split", SPLIT_SIZES)
def test_oracle_solves_every_task(split: str) -> None:
    environment = DatabaseEnvironment()
    for task_id in environment.task_ids(split):
        environment.reset(options={"task_id": task_id})
        first, second = list(environment.oracle())
        observation, reward, terminated, *_ = environment.step(first.action)
        assert not terminated
        assert not observation.startswith("Error")
        _, reward, terminated, _, info = environment.step(second.action)
        assert (reward, terminated, info["success"]) == (1.0, True, True), task_id
        assert info["exit_reason"] == "answered"
    environment.close()


@pytest.mark.parametrize("split", SPLIT_SIZES)
def test_idle_policies_score_nothing(dialogue: DatabaseDialogue, split: str) -> None:
    for task_id in DATABASE.task_ids(split)[:140]:
        for turns in (
            [""],
            ["I do not know."],
            [answer("done")],
            [answer()],
            [answer("0")],
            [answer("")],
            [operation("SELECT 1"), answer("done")],
        ):
            reward, _ = play_turns(dialogue, task_id, turns)
            assert reward == 0.0, (task_id, turns)


@pytest.mark.parametrize("split", SPLIT_SIZES)
def test_tasks_are_sound(split: str) -> None:
    for index in range(SPLIT_SIZES[split]):
        task = make_task(split, index)
        assert 5 <= len(task.table.rows) <= 8
        assert task.kind == KINDS[index % len(KINDS)]
        assert "\n" not in task.sql
        database = SqliteDatabase([task.table])
        before = database.state(task.table)
        rows = database.query(task.sql, 100)
        after = database.state(task.table)
        database.close()
        assert before is not None
        assert after is not None
        assert before == list(task.table.rows)
        assert task.changes == (table_hash(before) != table_hash(after))
        if task.changes:
            assert not rows
        else:
            assert rows
            assert all(label for label in task.label)
            assert task.label == tuple(str(row[0]) for row in rows)
        if task.kind in ("lookup", "count", "aggregate"):
            assert len(rows) == 1


def test_tasks_are_a_pure_function_of_split_and_index() -> None:
    assert [make_task("train", i) for i in range(50)] == [make_task("train", i) for i in range(50)]
    # Fixed by value: a change of the generator silently changes every published score.
    task = make_task("test", 0)
    assert task.sql == "SELECT bottle_cost FROM cellar_wines WHERE wine_name = 'Monte Doro'"
    assert task.label == ("84.3",)


def test_tasks_differ() -> None:
    train = {make_task("train", index).question for index in range(SPLIT_SIZES["train"])}
    assert len(train) > 0.8 * SPLIT_SIZES["train"]


def names(theme: Theme) -> tuple[set[str], set[str]]:
    columns = {theme.key.name, *(c.name for c in theme.texts), *(c.name for c in theme.numbers)}
    return set(theme.tables), columns


def test_no_table_and_no_column_is_shared_between_splits() -> None:
    assert len(themes("train")) >= 12
    assert len(themes("test")) >= 8
    for position in (0, 1):
        owners: Counter[str] = Counter()
        for split in SPLIT_SIZES:
            owners.update(set().union(*(names(theme)[position] for theme in themes(split))))
        assert [name for name, count in owners.items() if count > 1] == []


def test_generated_tables_keep_to_their_split() -> None:
    seen: dict[str, set[str]] = {}
    for split, size in SPLIT_SIZES.items():
        for index in range(size):
            table = make_task(split, index).table
            words = {table.name, *(column.name for column in table.columns)}
            seen.setdefault(split, set()).update(words)
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["dev"]
    assert not seen["dev"] & seen["test"]


def test_themes_can_be_put_into_sql_and_into_questions() -> None:
    for split in SPLIT_SIZES:
        for theme in themes(split):
            assert len(theme.key.values) >= 9
            assert len(theme.texts) >= 2
            assert len(theme.numbers) >= 2
            for text in (theme.key, *theme.texts):
                assert len(set(text.values)) == len(text.values) >= 3
                assert not any(set(value) & set("'\",") for value in text.values)
            for number in theme.numbers:
                assert number.low >= 1
                assert number.high - number.low >= 9


# Dialogue


def test_opening_and_first_observation(dialogue: DatabaseDialogue) -> None:
    observation, info = dialogue.reset(options={"task_id": "database-test-0000"})
    user, assistant = dialogue.opening()
    assert (user.role, assistant.content) == ("user", "Ok.")
    assert not user.trained
    assert not assistant.trained
    # Word for word: models have been trained on it.
    assert user.content.startswith("Work on an SQLite table: write a short thought, then one ")
    assert user.content.endswith('Action: Answer\nFinal Answer: ["value", ...]')
    assert observation.startswith(info["instruction"])
    assert observation.endswith(
        "\nThe table is named cellar_wines and has the headers wine_name, grape, bottle_cost."
    )
    assert info["valid_format"] is True
    assert (info["split"], info["backend"]) == ("test", "sqlite")


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        ("So.\nAction: Operation\n```sql\nSELECT 1;\n```", "Operation\nSELECT 1;"),
        ("Action: Operation\n```sql\nA\nB\n```\n```sql\nC\n```", "Operation\nA B"),
        ("Action: Answer\nFinal Answer: [1]", "Answer\n [1]"),
        ("I know.\nFinal Answer: [1]\nReally.", "Answer\n [1]"),
        (
            "Action: Operation\n```sql\nSELECT 1\n```\nAction: Answer\nFinal Answer: [1]",
            "Operation\nSELECT 1",
        ),
        ("Action: Operation \n```sql\nA\n```\nFinal Answer: 1", "Answer\n 1"),
        ("Final Answer: [1]", None),
        ("Action: Operation\n```sql\nSELECT 1", None),
        ("Action: Operation\n```SQL\nSELECT 1\n```", None),
        ("Action: Operation\nSELECT 1", None),
        ("Action: Answer", None),
        ("The Final Answer: [1]", None),
        ("", None),
    ],
)
def test_turns_are_read_as_agentbench_reads_them(
    dialogue: DatabaseDialogue, turn: str, expected: str | None
) -> None:
    assert dialogue.parse(turn) == expected


WORDS = st.text(st.characters(exclude_characters="\n`:", exclude_categories=["Cs"]), max_size=30)


@given(WORDS, WORDS.map(str.strip), st.sampled_from(["Operation", "Answer"]))
def test_what_is_written_is_read_back(thought: str, content: str, kind: str) -> None:
    written = PARSER.write(OracleStep(thought, f"{kind}\n{content}"))
    blank = " " if kind == "Answer" else ""
    assert PARSER.parse(written) == f"{kind}\n{blank}{content}"


@given(st.text())
def test_any_text_can_be_parsed(turn: str) -> None:
    action = PARSER.parse(turn)
    assert action is None or action.startswith(("Operation\n", "Answer\n"))


def test_bad_format_ends_the_episode_even_after_the_right_change(
    dialogue: DatabaseDialogue,
) -> None:
    right = operation(make_task("train", 1).sql)
    reward, info = play_turns(dialogue, "database-train-0001", [right, "All done!"])
    assert (reward, info["valid_format"], info["exit_reason"]) == (0.0, False, "bad_format")
    with pytest.raises(ResetNeeded):
        dialogue.step(answer("again"))


def test_after_the_last_operation_only_an_answer_counts(dialogue: DatabaseDialogue) -> None:
    task = make_task("train", 0)
    many = [operation("SELECT 1")] * MAX_OPERATIONS
    for turn in many:
        assert "exit_reason" not in play_turns(dialogue, "database-train-0000", [turn])[1]
    last = {
        operation("SELECT 1"): (0.0, "round_limit"),
        operation("SELECT 1") + f"\nFinal Answer: {json.dumps(task.label)}": (1.0, "answered"),
        answer(*task.label): (1.0, "answered"),
        "Hm.": (0.0, "bad_format"),
    }
    for turn, expected in last.items():
        reward, info = play_turns(dialogue, "database-train-0000", [*many, turn])
        assert (reward, info["exit_reason"]) == expected
    assert dialogue.rounds == dialogue.round_limit


def test_a_change_is_scored_by_the_state_whatever_the_answer(dialogue: DatabaseDialogue) -> None:
    task = make_task("train", 1)
    assert task.changes
    once, drop = operation(task.sql), operation(f"DROP TABLE {task.table.name}")
    assert play_turns(dialogue, "database-train-0001", [once, answer("whatever")])[0] == 1.0
    assert play_turns(dialogue, "database-train-0001", [once, once, answer("done")])[0] == 0.0
    assert play_turns(dialogue, "database-train-0001", [drop, answer("done")])[0] == 0.0


@pytest.mark.parametrize(
    "task_id", ["", "database-train-2000", "database-valid-0000", "database-train-1", 3]
)
def test_unknown_tasks_are_refused(task_id: object) -> None:
    with pytest.raises(ConfigError, match="unknown"):
        DatabaseEnvironment().reset(options={"task_id": task_id})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "oracle"}, "backend: found 'oracle', expected 'sqlite' or 'mariadb'"),
        ({"tasks": "bird"}, "tasks: found 'bird', expected one of generated, agentbench, pairs"),
        ({"tasks": "generated", "data": "/x"}, "needs no data"),
        ({"url": "mysql://root@localhost"}, "url: is for the backend 'mariadb'"),
        ({"backend": "mariadb", "url": "http://a:secret@b"}, "url: expected mysql://"),
        ({"backend": "mariadb", "url": "mysql://a:secret@b:x"}, "url: expected mysql://"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        DatabaseEnvironment(**options)
    assert "secret" not in str(caught.value)


def test_unknown_splits_are_refused() -> None:
    with pytest.raises(ConfigError, match="split 'valid'"):
        DatabaseEnvironment().task_ids("valid")


def test_an_unknown_action_is_invalid_and_harmless() -> None:
    environment = DatabaseEnvironment()
    environment.reset(options={"task_id": "database-train-0000"})
    observation, _, terminated, _, info = environment.step("Dance\nslowly")
    assert (terminated, info["valid_action"]) == (False, False)
    assert "neither" in observation
    environment.close()
    with pytest.raises(ResetNeeded):
        environment.step("Operation\nSELECT 1")
    with pytest.raises(ResetNeeded):
        next(environment.oracle())
