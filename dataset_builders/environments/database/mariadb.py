"""MariaDB backend: one database and one account per episode, on a real server.

The account can access only its own database and no files. Every statement uses a new connection, as
in AgentBench, so that no transaction, variable or lock outlives it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dataset_builders.environments.database.mariadb_client import connect, load_client, telling_loss
from dataset_builders.environments.database.mariadb_server import MariaDBServer, shared_server
from dataset_builders.environments.database.scoring import exact_hash
from dataset_builders.environments.database.server_url import parse_url
from dataset_builders.environments.database.tables import (
    Limits,
    StatementError,
    Table,
    shown,
)
from dataset_builders.errors import EnvironmentFailureError

_GRACE_SECONDS = 3.0
_ACCESS_DENIED, _GONE = 1045, 2013
_TYPES = {"INTEGER": "BIGINT", "REAL": "DOUBLE"}
_RIGHTS = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, INDEX, ALTER, CREATE TEMPORARY TABLES"
_SQL_MODE = "STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,NO_DIR_IN_CREATE"
"""MariaDB's default; the last mode keeps tables in the server's folder."""
_GROUP_CONCAT = 1_000_000


def quote(name: str) -> str:
    """Quote an identifier."""
    return "`" + name.replace("`", "``") + "`"


class MariaDB:
    """The MariaDB backend.

    Args:
        url: A server, with an account that may create databases and accounts; None for this
            process's private server.
    """

    name = "mariadb"

    def __init__(self, url: str | None = None) -> None:
        self._settings = None if url is None else parse_url(url)
        self._private: MariaDBServer | None = None
        self._control: Any = None

    def open(self, tables: Sequence[Table], limits: Limits, file: Path | None = None) -> _Database:
        """Create a database and fill it; see `Backend.open`."""
        if file is not None:
            from dataset_builders.environments.database.pairs import read_tables

            tables = read_tables(file, rows=True)
        return _Database(self, tables, limits)

    def settings(self) -> dict[str, Any]:
        """Arguments of `connect` for the server's administrator."""
        if self._settings is not None:
            return self._settings
        # The private server is looked up each time: one that died is replaced.
        self._private = shared_server()
        return {"unix_socket": str(self._private.socket), "user": "root", "ssl_disabled": True}

    def size(self, database: str) -> int:
        """Return the bytes that a database takes on a private server; 0 on any other."""
        return self._private.size(database) if self._private else 0

    def run(self, sql: str, arguments: Sequence[object] = ()) -> Sequence[tuple[Any, ...]]:
        """Run one of our own statements.

        Raises:
            pymysql.MySQLError: It fails.
            EnvironmentFailureError: The server cannot be reached.
        """
        with telling_loss(), self._connection().cursor() as cursor:
            cursor.execute(sql, arguments or None)
            rows: Sequence[tuple[Any, ...]] = cursor.fetchall()
            return rows

    def fill(self, insert: str, rows: Sequence[Sequence[object]]) -> None:
        """Insert rows."""
        with telling_loss(), self._connection().cursor() as cursor:
            cursor.executemany(insert, rows)

    def _connection(self) -> Any:
        pymysql = load_client()
        try:
            if self._control is None or not self._control.open:
                self._control = connect(
                    **self.settings(), charset="utf8mb4", autocommit=True, connect_timeout=10
                )
        except pymysql.MySQLError as error:
            reason = error.args[-1] if error.args else error
            raise EnvironmentFailureError(f"database: no MariaDB server: {reason}") from error
        return self._control

    def close(self) -> None:
        """Close the connection; a private server keeps running for the next episode."""
        control, self._control = self._control, None
        if control is not None:
            with suppress(load_client().MySQLError):
                control.close()


class _Database:
    """Database of one episode."""

    def __init__(self, server: MariaDB, tables: Sequence[Table], limits: Limits) -> None:
        # Letters and digits only: an underscore is a wildcard in a grant.
        self._name = f"agenttuning{secrets.token_hex(6)}"
        self._password = secrets.token_hex(16)
        self._server, self._limits, self._closed = server, limits, False
        try:
            self._make(tables)
        except BaseException:
            self.close()
            raise

    def _make(self, tables: Sequence[Table]) -> None:
        run, name = self._server.run, self._name
        try:
            run(f"CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
            self._make_account()
            for table in tables:
                columns = ", ".join(f"{quote(c.name)} {_type(c.affinity)}" for c in table.columns)
                run(f"CREATE TABLE {name}.{quote(table.name)} ({columns})")
                if table.rows:
                    marks = ", ".join(["%s"] * len(table.columns))
                    target = f"{name}.{quote(table.name)}".replace("%", "%%")
                    self._server.fill(f"INSERT INTO {target} VALUES ({marks})", table.rows)
        except load_client().MySQLError as error:
            raise EnvironmentFailureError(f"database: MariaDB refuses the task: {error}") from error

    def _make_account(self) -> None:
        run, name = self._server.run, self._name
        run(f"CREATE OR REPLACE USER {name}@'%%' IDENTIFIED BY %s", (self._password,))
        run(f"GRANT {_RIGHTS} ON {name}.* TO {name}@'%'")

    def query(self, sql: str, max_rows: int) -> Sequence[tuple[object, ...]]:
        """Run one statement and read up to `max_rows` rows.

        Raises:
            StatementError: The server rejects it, it takes too long, or the tables have grown too
                large; they are then dropped to free space for others.
            EnvironmentFailureError: The server is lost.
        """
        pymysql = load_client()
        try:
            with telling_loss():
                connection = self._connect()
        except pymysql.MySQLError as error:
            raise StatementError(_text(error, "42000")) from error
        try:
            rows = self._ask(connection, sql, max_rows)
        finally:
            with suppress(Exception):
                connection.close()
        if self._server.size(self._name) > self._limits.bytes:
            self._server.run(f"DROP DATABASE {self._name}")
            raise StatementError("1114 (HY000): The tables are full; all of them are dropped")
        return rows

    def _ask(self, connection: Any, sql: str, max_rows: int) -> Sequence[tuple[object, ...]]:
        pymysql = load_client()
        cursor = connection.cursor(pymysql.cursors.SSCursor)
        try:
            cursor.execute(sql)
            rows: Sequence[tuple[object, ...]] = cursor.fetchmany(max_rows)
        # A statement with a lone surrogate, or LOAD DATA LOCAL, which the client refuses.
        except (ValueError, RuntimeError) as error:
            self._kill(connection)
            raise StatementError(f"2000 (HY000): {error}") from error
        except pymysql.MySQLError as error:
            if error.args and error.args[0] == _GONE:
                self._kill(connection)
                raise StatementError("1969 (70100): Query execution was interrupted") from error
            raise StatementError(_text(error, _state(connection))) from error
        finally:
            _abandon(connection, cursor)
        if len(rows) == max_rows:
            self._kill(connection)  # The server may have much more to send.
        return rows

    def _connect(self) -> Any:
        pymysql = load_client()
        settings = self._server.settings() | {"user": self._name, "password": self._password}
        limits = {
            "database": self._name,
            "charset": "utf8mb4",
            "autocommit": True,
            "connect_timeout": 10,
            "read_timeout": self._limits.seconds + _GRACE_SECONDS,
            "init_command": f"SET SESSION max_statement_time = {self._limits.seconds}, "
            f"SESSION sql_mode = '{_SQL_MODE}'",
        }
        try:
            return connect(**settings, **limits)
        except pymysql.err.OperationalError as error:
            if error.args[0] != _ACCESS_DENIED:
                raise
            # A statement may change its account's password.
            self._make_account()
            return connect(**settings, **limits)

    def _kill(self, connection: Any) -> None:
        with suppress(load_client().MySQLError):
            self._server.run(f"KILL {connection.thread_id()}")

    def observe(self, sql: str) -> str:
        """Run one statement and return its outcome as AgentBench's DB task shows it."""
        return shown(self.query, sql)

    def state_hash(self, table: Table, cut: int | None = None) -> str | None:
        """Hash a table on the server, as AgentBench does.

        Returns:
            None if the table, or one of its initial columns, is gone, or the table exceeds its size
            limit.
        """
        columns = ", ".join(quote(column.name) for column in table.columns)
        source = f"{self._name}.{quote(table.name)}"
        run = self._server.run
        try:
            run(f"SET SESSION group_concat_max_len = {cut or _GROUP_CONCAT}")
            ((count,),) = run(f"SELECT COUNT(*) FROM {source}")
            if count > self._limits.state_rows:
                return None
            ((found,),) = run(
                "SELECT MD5(COALESCE(GROUP_CONCAT(hash ORDER BY hash), '')) FROM (SELECT "
                f"SUBSTRING(MD5(CONCAT_WS(',', {columns})), 1, 5) AS hash FROM {source}) AS hashes"
            )
        except load_client().MySQLError:
            return None
        return str(found)

    def exact_state(self, table: Table) -> str | None:
        """Hash a table's rows here; see `scoring.exact_hash`. None as in `state_hash`."""
        columns = ", ".join(quote(column.name) for column in table.columns)
        source, most = f"{self._name}.{quote(table.name)}", self._limits.state_rows
        try:
            rows = self._server.run(f"SELECT {columns} FROM {source} LIMIT {most + 1}")
        except load_client().MySQLError:
            return None
        return exact_hash(rows) if len(rows) <= most else None

    def close(self) -> None:
        """Drop the database and the account; may be called more than once."""
        if self._closed:
            return
        self._closed = True
        with suppress(EnvironmentFailureError):  # A lost server holds no data.
            self._server.run(f"DROP USER IF EXISTS {self._name}@'%'")
            self._server.run(f"DROP DATABASE IF EXISTS {self._name}")


def _abandon(connection: Any, cursor: Any) -> None:
    """Forget what has not been read; the client would read it to its end."""
    result = connection._result
    if result is not None:
        result.unbuffered_active = False
    connection._result = None
    cursor.close()


def _type(affinity: str) -> str:
    return _TYPES.get(affinity, "TEXT")


def _text(error: Exception, state: str) -> str:
    number, message = (*error.args, "", "")[:2]
    return f"{number} ({state}): {message}"


def _state(connection: Any) -> str:
    """Return the SQLSTATE of the last error, which the client drops and AgentBench shows."""
    with suppress(Exception), connection.cursor() as cursor:
        cursor.execute("GET DIAGNOSTICS CONDITION 1 @state = RETURNED_SQLSTATE")
        cursor.execute("SELECT @state")
        return str(cursor.fetchone()[0])
    return "HY000"
