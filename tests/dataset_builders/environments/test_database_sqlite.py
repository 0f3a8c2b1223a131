"""What a hostile statement cannot do to the SQLite backend."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.environments.database.engine import SqliteDatabase
from dataset_builders.environments.database.tables import (
    LARGE,
    OBSERVATION_CHARS,
    TRUNCATED,
    Column,
    StatementError,
    Table,
)

BOATS = Table(
    name="boats",
    columns=(Column("boat_name"), Column("crew_size", "INTEGER")),
    rows=(("Sea Lark", 9), ("Iron Fox", 10)),
)


@pytest.fixture
def database() -> Iterator[SqliteDatabase]:
    made = SqliteDatabase([BOATS])
    yield made
    made.close()


def test_observations_are_the_repr_of_the_rows(database: SqliteDatabase) -> None:
    assert database.observe("SELECT boat_name FROM boats LIMIT 1") == "[('Sea Lark',)]"
    assert database.observe("SELECT MAX(crew_size) FROM boats") == "[(10,)]"
    assert database.observe("UPDATE boats SET crew_size = 3") == "[]"
    assert database.observe("SELECT mast FROM boats") == "Error: no such column: mast"
    assert database.observe("") == "[]"


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "


@pytest.mark.parametrize(
    "sql",
    [
        "ATTACH DATABASE '/tmp/agenttuning_hostile.db' AS other",
        "VACUUM INTO '/tmp/agenttuning_hostile.db'",
        "PRAGMA writable_schema = 1",
        "PRAGMA max_page_count = 1000000",
        "SELECT load_extension('/tmp/x.so')",
        "CREATE VIRTUAL TABLE v USING fts5(a)",
        "CREATE TEMP TABLE boats (boat_name, crew_size)",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TRIGGER t AFTER UPDATE ON boats BEGIN DELETE FROM boats; END",
        "SELECT 1; DROP TABLE boats",
        "UPDATE boats SET crew_size = 1; SELECT 1",
        ENDLESS + "SELECT COUNT(*) FROM n",
        ENDLESS + "SELECT x, randomblob(9000) FROM n ORDER BY 2",
        ENDLESS + "SELECT group_concat(x) FROM n",
        "SELECT randomblob(1000000000)",
        "SELECT printf('%.*c', 1000000000, 'x')",
        "SELECT format('%1000000000d', 1)",
        "WITH a AS (SELECT 1), b AS(SELECT 1 FROM a,a), c AS /* */ (SELECT 1 FROM b,b) SELECT 1",
        "SELECT " + "1," * 1500 + "1",
        "INSERT INTO boats " + ENDLESS + "SELECT 'x', zeroblob(9000) FROM n",
        "SELECT " + "(" * 500 + "1" + ")" * 500,
        "SELECT 'a\x00b'",
        "SELECT '\ud800'",
        "SELECT ?",
        "é 'unclosed",
    ],
)
def test_hostile_statements_end_as_an_error(database: SqliteDatabase, sql: str) -> None:
    assert database.observe(sql).startswith("Error: ")
    # The table is unharmed and the database still usable, with its full budget.
    assert database.state(BOATS) == list(BOATS.rows)
    assert database.observe("SELECT 1") == "[(1,)]"
    assert not Path("/tmp/agenttuning_hostile.db").exists()


@pytest.mark.parametrize(
    "sql",
    [
        ENDLESS + "SELECT x FROM n",
        ENDLESS + "SELECT hex(zeroblob(4000)) FROM n",
        "SELECT CAST(x'ff41' AS TEXT)",
        "SELECT x'ff00'",
        "SELECT * FROM boats, boats b, boats c, boats d, boats e, boats f",
    ],
)
def test_large_or_broken_results_are_cut(database: SqliteDatabase, sql: str) -> None:
    observation = database.observe(sql)
    assert observation.startswith("[(")
    assert len(observation) <= OBSERVATION_CHARS + len(TRUNCATED)


def test_a_dropped_or_replaced_table_has_no_right_state(database: SqliteDatabase) -> None:
    assert database.observe("DROP TABLE boats") == "[]"
    assert database.state(BOATS) is None
    assert database.observe("CREATE TABLE boats (name TEXT)") == "[]"
    assert database.state(BOATS) is None


def test_repeated_named_subqueries_stay_small(database: SqliteDatabase) -> None:
    inner, outer = ",".join("a" * 190), ",".join("b" * 190)
    database.observe(f"WITH a AS (SELECT 1), b AS (SELECT 1 FROM {inner}) SELECT 1 FROM {outer}")
    assert database.observe("SELECT 1") == "[(1,)]"


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_survived_as_sql(sql: str) -> None:
    database = SqliteDatabase([BOATS])
    assert len(database.observe(sql)) <= OBSERVATION_CHARS + len(TRUNCATED)
    database.close()


def test_closing_twice_is_harmless_and_ends_access(database: SqliteDatabase) -> None:
    database.close()
    database.close()
    with pytest.raises(StatementError, match="closed"):
        database.query("SELECT 1", 1)


def test_two_shown_results_differ_only_where_they_are_cut(database: SqliteDatabase) -> None:
    numbers = ENDLESS + "SELECT 1 FROM n LIMIT "
    assert database.observe(numbers + "133") == str([(1,)] * 133)
    # AgentBench shows 800 characters of the whole result, however long.
    assert database.observe(numbers + "5000") == str([(1,)] * 5000)[:800] + TRUNCATED


def test_a_file_is_read_and_never_written(tmp_path: Path) -> None:
    file = tmp_path / "boats.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE boats (boat_name, crew_size)")
        connection.executemany("INSERT INTO boats VALUES (?, ?)", BOATS.rows)
        connection.commit()
    before = file.read_bytes()
    database = SqliteDatabase([BOATS], LARGE, file)
    assert database.observe("SELECT COUNT(*) FROM boats") == "[(2,)]"
    for sql in ("DELETE FROM boats", "CREATE TABLE b (a)", "DROP TABLE boats"):
        assert "readonly" in database.observe(sql)
    assert database.observe("PRAGMA query_only = 0").startswith("Error: ")
    database.close()
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_state_beyond_its_limit_is_none() -> None:
    small = SqliteDatabase([BOATS], replace(LARGE, state_rows=2))
    assert small.state(BOATS) == list(BOATS.rows)
    small.observe("INSERT INTO boats VALUES ('a', 1)")
    assert small.state(BOATS) is None
    assert small.state_hash(BOATS) is None
    small.close()
