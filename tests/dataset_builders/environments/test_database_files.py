"""Database tasks from files: AgentBench's, and pairs of question and SQL."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.environments import EnvironmentSpec, load_environment
from dataset_builders.environments.database.environment import DatabaseEnvironment
from dataset_builders.environments.database.scoring import table_hash
from dataset_builders.errors import ConfigError, DataError, SourceNotFoundError
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy, ScriptedPolicy
from dataset_builders.rollouts.validation import validate

SHIPS = {
    "name": "ships",
    "columns": ["name", {"name": "age", "type": "INTEGER"}],
    "rows": [["Lark", 9], ["Heron", 31], ["Fox", 12]],
}
PORTS = {"name": "ports", "columns": ["ship", "port"], "rows": [["Lark", "Brest"]]}
PAIRS: list[dict[str, Any]] = [
    {"question": "Oldest?", "sql": "SELECT MAX(age) FROM ships", "tables": [SHIPS]},
    {
        "question": "Who is in Brest?",
        "evidence": "Ships lie in ports.",
        "SQL": "SELECT name, age FROM ships\nJOIN ports ON ship = name",
        "tables": [SHIPS, PORTS],
    },
    {"question": "Drop the Fox.", "sql": "delete from ships where name = 'Fox'", "tables": [SHIPS]},
]
RECORD: dict[str, Any] = {
    "description": "How old is the Lark?",
    "add_description": "The name of this table is ships, and the headers are name,age.",
    "type": ["other"],
    "label": ["9"],
    "table": {
        "table_name": "ships",
        "table_info": {
            "columns": [{"name": "name", "type": "TEXT"}, {"name": "age", "type": "INT"}],
            "rows": [["Lark", "9"], ["Fox", "12"]],
        },
    },
}
CHANGE = {
    **RECORD,
    "type": ["UPDATE"],
    "label": ["UPDATE ships SET age = '10' WHERE name = 'lark'"],
    "answer_md5": f"[('{table_hash([('Lark', '10'), ('Fox', '12')])}',)]",
}


def write(path: Path, records: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


def pairs(folder: Path, records: list[Any] = PAIRS) -> EnvironmentSpec:
    return load_environment("database", data=write(folder / "pairs.jsonl", records))


def agentbench(folder: Path, records: list[Any]) -> EnvironmentSpec:
    return load_environment("database", data=write(folder / "standard.jsonl", records).parent)


# AgentBench


def test_agentbench_tasks_play_by_its_rules(tmp_path: Path) -> None:
    spec = agentbench(tmp_path, [RECORD, CHANGE])
    tasks = spec.task_ids("test")
    assert tasks == ("database-test-agentbench-000", "database-test-agentbench-001")
    assert [t.reward for t in play(spec, tasks, OraclePolicy())] == [1.0, 1.0]
    select = "So.\nAction: Operation\n```sql\nSELECT age FROM ships WHERE name = 'LARK'\n```"
    (played,) = play(spec, tasks[:1], ScriptedPolicy([select, "Hm.\nFinal Answer: 9"]))
    assert played.messages[2].content == f"{RECORD['description']}\n{RECORD['add_description']}"
    # Every column is text, compared without regard to case.
    assert played.messages[4].content == "[('9',)]"
    assert played.reward == 1.0


@pytest.mark.parametrize(
    ("last", "reason"),
    [("I am done.", "bad_format"), ("Hm.\nFinal Answer: x", "answered"), (None, "round_limit")],
)
def test_agentbench_compares_the_state_however_the_episode_ends(
    tmp_path: Path, last: str | None, reason: str
) -> None:
    spec = agentbench(tmp_path, [CHANGE])
    change = f"Go.\nAction: Operation\n```sql\n{CHANGE['label'][0]}\n```"
    policy = ScriptedPolicy([change, *([last] if last else [])])
    (played,) = play(spec, spec.task_ids("test"), policy)
    assert (played.reward, played.success, played.exit_reason) == (1.0, True, reason)


@pytest.mark.parametrize(
    ("info", "reason", "shown"),
    [
        ({"columns": [{"name": "Score"}, {"name": "score"}]}, "headers: found", "no such table"),
        ({"columns": [{"name": "a"}, {"name": " "}]}, "headers: found", "no such table"),
        ({"rows": [["Lark", "9"], ["Fox"]]}, "rows: found 1 values, expected 2", "[]"),
    ],
)
def test_malformed_tables_are_counted_and_scored_by_their_label(
    tmp_path: Path, info: dict[str, Any], reason: str, shown: str
) -> None:
    table = {**RECORD["table"], "table_info": {**RECORD["table"]["table_info"], **info}}
    spec = agentbench(tmp_path, [RECORD, {**RECORD, "table": table}])
    world = spec.world()
    assert isinstance(world, DatabaseEnvironment)
    (task_id,) = world.malformed("test")
    assert world.malformed("test")[task_id].startswith(reason)
    _, first = world.reset(options={"task_id": task_id})
    assert first["malformed"].startswith(reason)
    assert shown in world.step("Operation\nSELECT * FROM ships")[0]
    assert world.step("Answer\n ['9']")[1] == 1.0
    said: list[str] = []
    DatabaseEnvironment.setup(tmp_path, said.append)
    assert any("dev.jsonl: not found" in line for line in said)
    assert any("test: 2 tasks, 1 of them with a malformed table" in line for line in said)


def without(record: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in keys}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (without(RECORD, "table"), "line 2: table: found nothing, expected an object"),
        (without(RECORD, "description"), "line 2: description: found nothing, expected text"),
        (without(RECORD, "label"), "line 2: label: found nothing, expected a list"),
        (without(CHANGE, "answer_md5"), "line 2: answer_md5: found nothing, expected text"),
        (CHANGE | {"answer_md5": "x"}, "line 2: answer_md5: found 'x'"),
        (RECORD | {"type": []}, "line 2: type, label: found"),
        (RECORD | {"label": [9]}, "line 2: type, label: found"),
        (RECORD | {"table": {"table_name": "x"}}, "line 2: table_info: found nothing"),
        (
            RECORD | {"table": {"table_name": "x", "table_info": {"columns": ["a"], "rows": []}}},
            "line 2: table_info: expected columns as objects",
        ),
        (["a"], "line 2: found JSON of type list, expected an object"),
    ],
)
def test_bad_agentbench_records_are_named(tmp_path: Path, record: Any, message: str) -> None:
    spec = agentbench(tmp_path, [RECORD, record])
    with pytest.raises(DataError) as caught:
        spec.task_ids("test")
    assert f"standard.jsonl, {message}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    spec = agentbench(tmp_path, [RECORD])
    with (tmp_path / "standard.jsonl").open("ab") as file:
        file.write(b'\n{"description": \xff')
    with pytest.raises(DataError, match=r"standard.jsonl, line 3: broken JSON"):
        spec.task_ids("test")


def test_absent_agentbench_data_say_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"standard.jsonl.*dbbench"):
        load_environment("database", data=tmp_path / "none").task_ids("test")
    spec = agentbench(tmp_path, [RECORD])
    with pytest.raises(ConfigError, match="split 'train' is unknown"):
        spec.task_ids("train")
    with pytest.raises(SourceNotFoundError, match=r"dev.jsonl: not found"):
        spec.task_ids("dev")
    with pytest.raises(ConfigError, match="is unknown; expected one such as"):
        spec.world().reset(options={"task_id": "database-test-agentbench-001"})


def test_agentbench_is_found_among_the_data(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTTUNING_DATA", str(shared / "data"))
    spec = load_environment("database", tasks="agentbench")
    assert (len(spec.task_ids("test")), len(spec.task_ids("dev"))) == (300, 60)


def test_gold_changes_and_labels_of_agentbench_on_sqlite(shared: Path) -> None:
    """195 of the 200 recorded changes reach the recorded state; all labels are accepted."""
    spec = load_environment("database", data=shared / "data/dbbench")
    played = play(spec, spec.task_ids("test"), OraclePolicy())
    failed = [int(t.task_id[-3:]) for t in played if t.reward < 1]
    assert failed == [164, 180, 206, 225, 242]
    assert all(t.reward == 1 for t in play(spec, spec.task_ids("dev"), OraclePolicy()))
    world = spec.world()
    assert isinstance(world, DatabaseEnvironment)
    assert len(world.malformed("test")) == 4


# AgentInstruct


def test_every_real_turn_is_read_and_the_real_wording_is_used(shared: Path) -> None:
    copy = shared / "data/agentinstruct"
    dialogue = load_environment(
        "database", prompt="published", agentinstruct=str(copy / "db.jsonl")
    ).make()
    dialogue.reset(options={"task_id": "database-test-0000"})
    rows = [json.loads(line) for line in (copy / "db.jsonl").read_text("utf-8").splitlines()]
    opening = rows[0]["conversations"][:2]
    assert [m.content for m in dialogue.opening()] == [turn["value"] for turn in opening]
    turns = [t["value"] for row in rows for t in row["conversations"] if t["loss"]]
    assert len(turns) > 800
    assert [turn for turn in turns if dialogue.parse(turn) is None] == []
    dialogue.close()


# Pairs of question and SQL


def test_pairs_are_solved_by_their_own_statements(tmp_path: Path) -> None:
    spec = pairs(tmp_path)
    result = validate(spec)
    assert (result.ok, result.num_tasks) == (True, 3)
    oldest, brest, fox = play(spec, spec.task_ids("train"), OraclePolicy())
    assert oldest.messages[2].content == (
        "Oldest?\nThe table is named ships and has the headers name, age."
    )
    assert brest.messages[2].content == (
        "Who is in Brest?\nShips lie in ports.\nThere are 2 tables.\n"
        "Table 1 is named ships and has the headers name, age.\n"
        "Table 2 is named ports and has the headers ship, port."
    )
    assert brest.messages[-1].content.endswith('Final Answer: ["Lark", "9"]')
    assert fox.messages[3].content.endswith("```sql\ndelete from ships where name = 'Fox'\n```")


def test_a_change_beside_the_asked_one_scores_nothing(tmp_path: Path) -> None:
    two = {**PAIRS[2], "tables": [SHIPS, PORTS]}
    spec = pairs(tmp_path, [two])
    sql = "Go.\nAction: Operation\n```sql\nDELETE FROM {} WHERE {}\n```"
    turns = [sql.format("ships", "name = 'Fox'"), sql.format("ports", "1"), "!\nFinal Answer: 1"]
    (asked,) = play(spec, spec.task_ids("train"), ScriptedPolicy([turns[0], turns[2]]))
    (more,) = play(spec, spec.task_ids("train"), ScriptedPolicy(turns))
    assert (asked.reward, more.reward) == (1.0, 0.0)


def test_only_the_state_that_was_asked_for_scores(tmp_path: Path) -> None:
    table = {"name": "t", "columns": ["a", "b"], "rows": [["x", None], ["y", "z"]]}
    sql = "UPDATE t SET a = NULL, b = 'x' WHERE a = 'x'"
    spec = pairs(tmp_path, [{"question": "Move x to b.", "sql": sql, "tables": [table]}])
    turn = "Go.\nAction: Operation\n```sql\n{}\n```"
    end = "Done.\nFinal Answer: done"
    for statement, expected in ((sql, 1.0), ("SELECT 1", 0.0)):
        policy = ScriptedPolicy([turn.format(statement), end])
        (played,) = play(spec, spec.task_ids("train"), policy)
        assert played.reward == expected


@pytest.mark.parametrize(
    "sql",
    [
        "REPLACE INTO ships VALUES ('Fox', 13)",
        "WITH x AS (SELECT 'Fox' AS n) UPDATE ships SET age = 1 WHERE name IN (SELECT n FROM x)",
    ],
)
def test_every_statement_that_changes_rows_is_scored_by_the_state(tmp_path: Path, sql: str) -> None:
    spec = pairs(tmp_path, [PAIRS[0] | {"sql": sql}])
    idle = ScriptedPolicy(["Nothing to do.\nFinal Answer: []"])
    (idled,) = play(spec, spec.task_ids("train"), idle)
    (solved,) = play(spec, spec.task_ids("train"), OraclePolicy())
    assert (idled.reward, solved.reward) == (0.0, 1.0)


@pytest.mark.parametrize("sql", ["-- a note", "CREATE TABLE t (a)", "PRAGMA table_info(ships)"])
def test_a_statement_that_neither_asks_nor_changes_rows_is_refused(
    tmp_path: Path, sql: str
) -> None:
    # Its result is empty, which is what an agent that answers [] states.
    spec = pairs(tmp_path, [PAIRS[0] | {"sql": sql}])
    with pytest.raises(DataError, match=r"line 1: sql: found a statement .* expected SELECT"):
        spec.world().reset(options={"task_id": "database-train-pairs-00000"})


def test_pairs_on_sqlite_files(tmp_path: Path) -> None:
    file = tmp_path / "databases" / "fleet" / "fleet.sqlite"
    file.parent.mkdir(parents=True)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE ships (name TEXT, age INTEGER)")
        connection.executemany("INSERT INTO ships VALUES (?, ?)", SHIPS["rows"])
        connection.commit()
    before = file.read_bytes()
    records = [
        {**without(PAIRS[0], "tables"), "db_id": "fleet"},
        {**without(PAIRS[2], "tables"), "database": "databases/fleet/fleet.sqlite"},
    ]
    spec = pairs(tmp_path, records)
    assert [t.reward for t in play(spec, spec.task_ids("train"), OraclePolicy())] == [1.0, 1.0]
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (without(PAIRS[0], "question"), "question: found nothing, expected text"),
        (without(PAIRS[0], "sql"), "sql: found nothing, expected text"),
        (PAIRS[0] | {"sql": " "}, "sql: found no statement"),
        (PAIRS[0] | {"evidence": 3}, "evidence: found int, expected text"),
    ],
)
def test_bad_pairs_are_named(tmp_path: Path, record: Any, message: str) -> None:
    spec = pairs(tmp_path, [PAIRS[0], record])
    with pytest.raises(DataError) as caught:
        spec.task_ids("train")
    assert f"pairs.jsonl, line 2: {message}" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tables": []}, "tables: found none"),
        ({"tables": [3]}, "tables: found int, expected objects"),
        ({"tables": [{**SHIPS, "columns": ["a", "A"]}]}, "ships: columns: found"),
        ({"tables": [{**SHIPS, "rows": [["Lark"]]}]}, "ships: row 0: found 1 values, expected 2"),
        ({"tables": [{**SHIPS, "rows": [["Lark", {}]]}]}, "ships: row 0: found"),
        ({"tables": [{**SHIPS, "rows": [["Lark", 2**63]]}]}, "ships: row 0: found"),
        ({"tables": [without(SHIPS, "name")]}, "name: found nothing, expected text"),
        ({"sql": "SELECT mast FROM ships"}, "reference statement: Error: no such column"),
        (
            {"sql": "WITH RECURSIVE n AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT 1 FROM n"},
            "over",
        ),
    ],
)
def test_a_bad_pair_ends_its_own_episode_only(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    spec = pairs(tmp_path, [PAIRS[0] | change, PAIRS[0]])
    broken, fine = play(spec, spec.task_ids("train"), OraclePolicy())
    assert (broken.exit_reason, fine.reward) == ("environment_error", 1.0)
    assert message in broken.error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "found none of tables, database, db_id"),
        ({"database": "no.sqlite"}, "expected an SQLite database"),
        ({"database": "pairs.jsonl"}, "file is not a database, expected an SQLite database"),
    ],
)
def test_a_bad_database_file_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    spec = pairs(tmp_path, [without(PAIRS[0], "tables") | change])
    with pytest.raises(DataError, match=message):
        spec.world().reset(options={"task_id": "database-train-pairs-00000"})


def test_absent_pairs_say_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"pairs.jsonl.*docs/tasks/held-in/database.md"):
        load_environment("database", tasks="pairs", data=tmp_path).task_ids("train")
    spec = pairs(tmp_path)
    with pytest.raises(ConfigError, match="have: train"):
        spec.task_ids("test")
    with pytest.raises(ConfigError, match="is unknown; expected one such as"):
        spec.world().reset(options={"task_id": "database-train-pairs-00003"})


@pytest.mark.parametrize("index", ["0", 1.5, -1, 10**6])
def test_an_index_that_is_none_is_refused(index: object) -> None:
    with pytest.raises(ConfigError, match="index: found"):
        DatabaseEnvironment().reset(options={"split": "dev", "index": index})


def test_a_split_without_tasks_is_told(tmp_path: Path) -> None:
    (tmp_path / "standard.jsonl").write_text("")
    with pytest.raises(ConfigError, match="split 'test': found no tasks"):
        DatabaseEnvironment(tmp_path).reset(options={"split": "test"})


def test_a_folder_that_is_not_there_is_told_as_such() -> None:
    with pytest.raises(SourceNotFoundError, match=r"/nonexistent: found nothing there"):
        load_environment("database", data="/nonexistent").task_ids("train")


@pytest.mark.parametrize(
    ("table", "column", "message"),
    [("sqlite_x", "a", "without 'sqlite_'"), ("t", "a\0b", "a name of text")],
)
def test_names_that_no_table_may_have(
    tmp_path: Path, table: str, column: str, message: str
) -> None:
    tables = [{"name": table, "columns": [column], "rows": [[1]]}]
    record = {"question": "?", "sql": "SELECT 1", "tables": tables}
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(record), "utf-8")
    with pytest.raises(DataError, match=rf"pairs\.jsonl.*{message}"):
        load_environment("database", data=str(path)).make().reset(
            options={"split": "train", "index": 0}
        )
