"""The MariaDB backend, on real servers that the tests start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from dataset_builders.environments import load_environment
from dataset_builders.environments.database.environment import DatabaseEnvironment
from dataset_builders.environments.database.mariadb import MariaDB
from dataset_builders.environments.database.mariadb_server import (
    MariaDBServer,
    missing_programs,
    shared_server,
)
from dataset_builders.environments.database.server_url import parse_url
from dataset_builders.environments.database.tables import LARGE, Column, Database, Table
from dataset_builders.errors import ConfigError, EnvironmentFailureError
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from dataset_builders.rollouts.validation import validate

pymysql = pytest.importorskip("pymysql", reason="pip install 'agenttuning-plugin[mariadb]'")
if missing_programs():
    pytest.skip(missing_programs(), allow_module_level=True)

BOATS = Table(
    name="boats",
    columns=(Column("boat_name"), Column("crew size", "INTEGER"), Column("50%`")),
    rows=(("Sea Lark", 9, "é😀"), ("Iron Fox", 10, None)),
)
MARIADB = load_environment("database", backend="mariadb")


@pytest.fixture
def server() -> Iterator[MariaDB]:
    made = MariaDB()
    yield made
    made.close()


@pytest.fixture
def database(server: MariaDB) -> Iterator[Database]:
    made = server.open([BOATS], replace(LARGE, seconds=0.3))
    yield made
    made.close()


def leftovers(server: MariaDB) -> list[tuple[str, ...]]:
    return [
        *server.run("SHOW DATABASES LIKE 'agenttuning%'"),
        *server.run("SELECT User FROM mysql.user WHERE User LIKE 'agenttuning%'"),
    ]


def test_validation_and_what_is_left(server: MariaDB) -> None:
    assert validate(MARIADB, num_tasks=14).ok
    assert leftovers(server) == []


def test_the_conversation_names_the_engine() -> None:
    dialogue = MARIADB.make()
    _, info = dialogue.reset(options={"task_id": "database-train-0000"})
    assert dialogue.opening()[0].content.startswith("Work on a MariaDB table: write a short")
    assert info["backend"] == "mariadb"
    dialogue.close()


def test_results_read_as_in_agentbench(database: Database) -> None:
    assert database.observe("SELECT * FROM boats") == str([tuple(row) for row in BOATS.rows])
    assert database.observe("SELECT SUM(`crew size`) FROM boats") == "[(Decimal('19'),)]"
    assert database.observe("DELETE FROM boats WHERE 0") == "[]"
    assert database.observe("SELECT mast FROM boats").startswith("1054 (42S22): Unknown column")
    assert database.observe("SELEC 1").startswith("1064 (42000): You have an error")
    assert database.observe("").startswith("1065 (42000): ")
    many = "SELECT 1 FROM information_schema.columns LIMIT "
    assert database.observe(many + "133") == str([(1,)] * 133)
    assert database.observe(many + "1000") == str([(1,)] * 1000)[:800] + "[TRUNCATED]"


def test_both_backends_hash_alike(database: Database) -> None:
    from dataset_builders.environments.database.engine import SqliteDatabase

    sqlite = SqliteDatabase([BOATS], LARGE)
    for sql in ("SELECT 1", "UPDATE boats SET `crew size` = 3", "DELETE FROM boats"):
        database.observe(sql)
        sqlite.observe(sql)
        assert database.state_hash(BOATS) == sqlite.state_hash(BOATS) is not None
    sqlite.close()


def test_the_exact_state_differs_where_agentbench_sees_no_difference(database: Database) -> None:
    state = database.exact_state(BOATS)
    database.observe(
        "UPDATE boats SET boat_name = NULL, `50%``` = 'Iron Fox' WHERE `crew size` = 10"
    )
    moved = database.exact_state(BOATS)
    database.observe(
        "UPDATE boats SET boat_name = 'Iron Fox', `50%``` = NULL WHERE `crew size` = 10"
    )
    assert database.exact_state(BOATS) == state is not None
    assert moved not in (state, None)
    database.observe("DELETE FROM boats")
    assert database.exact_state(BOATS) not in (state, moved, None)
    database.observe("DROP TABLE boats")
    assert database.exact_state(BOATS) is None


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'x' INTO OUTFILE '/tmp/agenttuning_hostile'",
        "SELECT 'x' INTO DUMPFILE '/tmp/agenttuning_hostile'",
        "LOAD DATA INFILE '/etc/passwd' INTO TABLE boats",
        "LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE boats",
        "CREATE TABLE t (a INT) DATA DIRECTORY='/tmp'",
        "SELECT * FROM mysql.user",
        "CREATE DATABASE agenttuning_hostile",
        "DROP DATABASE mysql",
        "CREATE USER hostile",
        "GRANT ALL ON *.* TO CURRENT_USER()",
        "SET GLOBAL max_connections = 1",
        "INSTALL SONAME 'ha_example'",
        "CREATE FUNCTION f RETURNS STRING SONAME 'x.so'",
        "CREATE PROCEDURE p() SELECT 1",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TRIGGER t BEFORE INSERT ON boats FOR EACH ROW SET @a = 1",
        "CREATE EVENT e ON SCHEDULE EVERY 1 SECOND DO SELECT 1",
        "SELECT 1; DROP TABLE boats",
        "UPDATE boats SET `crew size` = 1; SELECT 1",
        "SHUTDOWN",
        "FLUSH TABLES WITH READ LOCK",
        "LOCK TABLES boats WRITE",
        "SELECT SLEEP(60)",
        "SET STATEMENT max_statement_time = 0 FOR SELECT SLEEP(60)",
        "SELECT '\ud800'",
    ],
)
def test_hostile_statements_end_as_an_error(database: Database, sql: str) -> None:
    before, started = database.state_hash(BOATS), time.monotonic()
    assert database.observe(sql)[:4].isdigit()
    assert time.monotonic() - started < 8
    assert database.state_hash(BOATS) == before is not None
    assert database.observe("SELECT 1") == "[(1,)]"
    assert not Path("/tmp/agenttuning_hostile").exists()


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT LOAD_FILE('/etc/passwd')", "[(None,)]"),
        ("SELECT REPEAT('x', 1000000000)", "[(None,)]"),
        ("SET PASSWORD = PASSWORD('mine')", "[]"),
        ("SET SESSION max_statement_time = 0", "[]"),
        ("SET SESSION autocommit = 0", "[]"),
        ("START TRANSACTION", "[]"),
        ("SELECT GET_LOCK('a', 60)", "[(1,)]"),
        ("XA START 'a'", "[]"),
        ("KILL CONNECTION_ID()", "1927 (HY000): Connection was killed"),
    ],
)
def test_nothing_outlives_a_statement(database: Database, sql: str, expected: str) -> None:
    assert database.observe(sql) == expected
    assert database.observe("SELECT 1") == "[(1,)]"
    assert database.observe("SELECT SLEEP(9)").startswith(("[(1,)]", "1969 (70100)"))


def test_large_results_are_cut(database: Database) -> None:
    many = "information_schema.columns"
    started = time.monotonic()
    text = database.observe(f"SELECT REPEAT('x', 9999) FROM {many} a, {many} b, {many} c")
    assert text == "[('" + "x" * 797 + "[TRUNCATED]"
    assert time.monotonic() - started < 4
    assert database.observe("SELECT 1") == "[(1,)]"


def test_episodes_do_not_see_each_other(server: MariaDB) -> None:
    one, other = server.open([BOATS], LARGE), server.open([BOATS], LARGE)
    own = one.observe("SELECT DATABASE()")
    names = [name for (name,) in server.run("SHOW DATABASES LIKE 'agenttuning%'")]
    seen = []
    for name in sorted(names, key=lambda name: name in own):
        for sql in (f"SELECT 1 FROM {name}.boats LIMIT 1", f"DROP DATABASE {name}"):
            seen.append(one.observe(sql)[:5])
    state, gone = other.state_hash(BOATS), one.state_hash(BOATS)
    first = one.observe("SELECT 1")
    for database in (one, other, other):
        database.close()
    # It may drop its own, which then has no right state.
    assert seen == ["1142 ", "1044 ", "[(1,)", "[]"]
    assert (state is None, gone is None) == (False, True)
    assert first.startswith("1049 (42000): Unknown database")


def test_tables_that_fill_the_server_are_dropped(server: MariaDB, database: Database) -> None:
    greedy = server.open([BOATS], replace(LARGE, bytes=20 * 2**20))
    assert greedy.observe("CREATE TABLE f (a MEDIUMTEXT)") == "[]"
    assert greedy.observe("CREATE TABLE m (a TEXT) ENGINE=MyISAM").startswith("1290 ")
    fill = "INSERT INTO f SELECT REPEAT('x', 900000) FROM information_schema.columns LIMIT 9"
    assert "full" in "".join(greedy.observe(fill) for _ in range(4))
    assert greedy.state_hash(BOATS) is None
    assert database.observe("UPDATE boats SET `crew size` = 1") == "[]"
    greedy.close()


def test_many_episodes_at_once(server: MariaDB) -> None:
    tasks = MARIADB.task_ids("train")[:24]
    with ThreadPoolExecutor(8) as pool:
        played = list(pool.map(lambda task: play(MARIADB, [task], OraclePolicy())[0].reward, tasks))
    assert played == [1.0] * 24
    assert leftovers(server) == []


def test_gold_changes_and_labels_of_agentbench_on_mariadb(shared: Path) -> None:
    """197 of the 200 recorded changes reach the recorded state; all labels are accepted."""
    spec = load_environment("database", data=shared / "data/dbbench", backend="mariadb")
    played = play(spec, spec.task_ids("test"), OraclePolicy())
    assert [int(t.task_id[-3:]) for t in played if t.reward < 1] == [225, 278, 295]


def test_pairs_on_mariadb(tmp_path: Path) -> None:
    table = {
        "name": "a b",
        "columns": ["x", {"name": "n", "type": "INT"}],
        "rows": [["p", 9], ["q", 10]],
    }
    record = {"question": "Most?", "sql": "SELECT x FROM `a b` ORDER BY n DESC LIMIT 1"}
    change = {"question": "Add.", "sql": "INSERT INTO `a b` VALUES ('r', 1)"}
    lines = [json.dumps(each | {"tables": [table]}) for each in (record, change)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines), "utf-8")
    spec = load_environment("database", data=tmp_path, backend="mariadb")
    assert validate(spec).ok
    assert (
        play(spec, spec.task_ids("train"), OraclePolicy())[0].messages[-1].content.endswith('["q"]')
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    options = ("--skip-networking=0", "--bind-address=127.0.0.1", f"--port={port}")
    with MariaDBServer(options) as own:
        with pymysql.connect(unix_socket=str(own.socket), user="root") as connection:
            connection.cursor().execute("CREATE USER adam@'%' IDENTIFIED BY 'p@ss'")
            connection.cursor().execute("GRANT ALL ON *.* TO adam@'%' WITH GRANT OPTION")
        url = f"mysql://adam:p%40ss@127.0.0.1:{port}"
        assert validate(load_environment("database", backend="mariadb", url=url), num_tasks=4).ok
        wrong = DatabaseEnvironment(backend="mariadb", url=url.replace("p%40", "secret"))
        with pytest.raises(EnvironmentFailureError, match="Access denied") as caught:
            wrong.reset(options={"task_id": "database-train-0000"})
        assert "secret" not in str(caught.value)
        monkeypatch.setenv("AGENTTUNING_MARIADB_PASSWORD", "p@ss")
        url = f"mysql://adam@/?unix_socket={own.socket}"
        assert validate(load_environment("database", backend="mariadb", url=url), num_tasks=2).ok
    assert not own.folder.exists()
    with pytest.raises(EnvironmentFailureError, match="no MariaDB server"):
        MariaDB(url).open([BOATS], LARGE)


@pytest.mark.parametrize(
    "url", ["", "mysql://", "mysql://localhost", "postgres://a@b", "mysql://a@b?ssl=1"]
)
def test_bad_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="expected mysql://user:password@host:port"):
        parse_url(url)


HOLD = """
from dataset_builders.environments.database.mariadb_server import shared_server
server = shared_server()
print(server.folder, (server.folder / "pid").read_text().strip(), flush=True)
input()
"""


@pytest.mark.parametrize("end", ["kill", "exit"])
def test_a_private_server_ends_with_its_process(end: str) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdin is not None
    assert owner.stdout is not None
    folder, pid = owner.stdout.readline().split()
    assert Path(folder).exists()
    if end == "kill":
        os.kill(owner.pid, signal.SIGKILL)
    else:
        owner.stdin.write("\n")
        owner.stdin.flush()
    assert owner.wait(30) == (-signal.SIGKILL if end == "kill" else 0)
    owner.stdin.close()
    owner.stdout.close()
    deadline = time.monotonic() + 30
    while Path(folder).exists() or Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_process_has_one_private_server_that_others_cannot_reach() -> None:
    server = shared_server()
    assert shared_server() is server
    assert server.folder.stat().st_mode & 0o077 == 0


def test_a_server_that_died_is_no_observation_and_is_replaced() -> None:
    dialogue, options = MARIADB.make(), {"task_id": "database-train-0000"}
    dialogue.reset(options=options)
    folder = shared_server().folder
    os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
    deadline = time.monotonic() + 20
    while (folder / "socket").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(EnvironmentFailureError, match="server"):
        dialogue.step("One look.\nAction: Operation\n```sql\nSELECT 1\n```")
    dialogue.close()
    assert play(MARIADB, ["database-train-0000"], OraclePolicy())[0].reward == 1
