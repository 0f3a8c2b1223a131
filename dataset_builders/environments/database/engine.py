"""SQLite database that runs untrusted statements safely.

The statements come from a language model, so each one is limited in what it may do
(authorizer), in work (virtual machine instructions, not seconds: the same statement
must end the same way on every machine), in memory and in output.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from dataset_builders.environments.database.scoring import exact_hash, table_hash
from dataset_builders.environments.database.tables import (
    SMALL,
    Limits,
    StatementError,
    Table,
    Value,
    shown,
)

_INSTRUCTIONS_PER_CHECK = 1000

# A list of what is allowed: SQLite adds new actions over time, and ATTACH, VACUUM INTO, PRAGMA
# and virtual tables all reach outside the one table. Temporary objects, triggers and
# views could shadow it or hide work, so they are left out too.
_ALLOWED_ACTIONS = frozenset(
    {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_RECURSIVE,
        sqlite3.SQLITE_INSERT,
        sqlite3.SQLITE_UPDATE,
        sqlite3.SQLITE_DELETE,
        sqlite3.SQLITE_TRANSACTION,
        sqlite3.SQLITE_CREATE_TABLE,
        sqlite3.SQLITE_CREATE_INDEX,
        sqlite3.SQLITE_DROP_TABLE,
        sqlite3.SQLITE_DROP_INDEX,
        sqlite3.SQLITE_ALTER_TABLE,
        sqlite3.SQLITE_REINDEX,
    }
)


# One call of printf can fill gigabytes within a single instruction.
_REFUSED_FUNCTIONS = frozenset({"load_extension", "printf", "format"})

# SQLite copies a named subquery at every mention before it asks the authorizer or counts
# instructions, so a chain of them multiplies memory with each link. Two are harmless in
# a short statement.
_NAMED_SUBQUERY = re.compile(r"\bas(?:\s|/\*.*?\*/|not\b|materialized\b)*\(", re.IGNORECASE)
_MAX_NAMED_SUBQUERIES = 2
_MAX_CHARS_WITH_NAMED = 2_000


def quote_name(name: str) -> str:
    """Quote an identifier for SQLite."""
    return '"' + name.replace('"', '""') + '"'


def _authorize(
    action: int, first: str | None, second: str | None, database: str | None, trigger: str | None
) -> int:
    del first, database, trigger
    if action not in _ALLOWED_ACTIONS:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _REFUSED_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


class SqliteDatabase:
    """Private tables that accept SQL. Close it after use.

    Args:
        tables: Initial tables.
        limits: Limits of a statement.
        file: An SQLite file to read instead of making tables; it is never written, and
            its tables are those of `tables`.
    """

    def __init__(
        self, tables: Sequence[Table], limits: Limits = SMALL, file: Path | None = None
    ) -> None:
        self._limits = limits
        self._checks = 0
        # Autocommit, so that a failed statement leaves no transaction behind.
        self._connection = sqlite3.connect(
            ":memory:" if file is None else f"{file.resolve().as_uri()}?mode=ro",
            isolation_level=None,
            check_same_thread=False,
            uri=file is not None,
        )
        # Text that is not UTF-8 (CAST(x'ff' AS TEXT)) must not raise on read.
        self._connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        if file is None:
            self._connection.execute(f"PRAGMA max_page_count = {limits.pages}")
            for table in tables:
                self._make(table)
        self._bound()

    def _make(self, table: Table) -> None:
        columns = ", ".join(f"{quote_name(c.name)} {c.affinity}" for c in table.columns)
        self._connection.execute(f"CREATE TABLE {quote_name(table.name)} ({columns})")
        marks = ", ".join("?" * len(table.columns))
        insert = f"INSERT INTO {quote_name(table.name)} VALUES ({marks})"
        self._connection.executemany(insert, table.rows)

    def _bound(self) -> None:
        for limit, value in (
            (sqlite3.SQLITE_LIMIT_LENGTH, self._limits.length),
            (sqlite3.SQLITE_LIMIT_SQL_LENGTH, self._limits.sql_length),
            (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 200),
            (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 100),
        ):
            self._connection.setlimit(limit, value)
        self._connection.set_authorizer(_authorize)
        self._connection.set_progress_handler(self._out_of_budget, _INSTRUCTIONS_PER_CHECK)

    def _out_of_budget(self) -> bool:
        self._checks += 1
        return self._checks * _INSTRUCTIONS_PER_CHECK > self._limits.instructions

    def query(self, sql: str, max_rows: int) -> list[tuple[Value, ...]]:
        """Run one statement.

        Args:
            sql: The statement.
            max_rows: Rows after which reading stops.

        Returns:
            The rows; empty for a statement without a result.

        Raises:
            StatementError: SQLite rejects the statement or exceeds its budget, or it is more than
                one statement, or has more than two named subqueries (WITH).
        """
        named = len(_NAMED_SUBQUERY.findall(sql))
        if named > _MAX_NAMED_SUBQUERIES or (named and len(sql) > _MAX_CHARS_WITH_NAMED):
            raise StatementError(f"Error: more than {_MAX_NAMED_SUBQUERIES} named subqueries")
        self._checks = 0
        try:
            cursor = self._connection.execute(sql)
            try:
                return cursor.fetchmany(max_rows)
            finally:
                cursor.close()
        # Several statements are a Warning in Python 3.11, lone surrogates a ValueError.
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            raise StatementError(f"Error: {error}") from error

    def observe(self, sql: str) -> str:
        """Run one statement and return its outcome as AgentBench's DB task shows it."""
        return shown(self.query, sql)

    def state(self, table: Table) -> list[tuple[Value, ...]] | None:
        """Read the initial columns of a table.

        Returns:
            All rows, or None if the table or one of the columns is gone, or the table exceeds its
            size limit.
        """
        # Qualified, because SQLite reads a quoted name that is no column as text.
        source = f"main.{quote_name(table.name)}"
        columns = ", ".join(f"{source}.{quote_name(c.name)}" for c in table.columns)
        try:
            rows = self.query(f"SELECT {columns} FROM {source}", self._limits.state_rows + 1)
        except StatementError:
            return None
        return rows if len(rows) <= self._limits.state_rows else None

    def state_hash(self, table: Table, cut: int | None = None) -> str | None:
        """Hash a table's content; see `scoring.table_hash`. None if `state` is None."""
        rows = self.state(table)
        return None if rows is None else table_hash(rows, cut)

    def exact_state(self, table: Table) -> str | None:
        """Hash a table's content; see `scoring.exact_hash`. None if `state` is None."""
        rows = self.state(table)
        return None if rows is None else exact_hash(rows)

    def close(self) -> None:
        """Free the database; may be called more than once."""
        self._connection.close()


class Sqlite:
    """The SQLite backend: in-memory databases, or databases read from a file."""

    name = "sqlite"

    def open(
        self, tables: Sequence[Table], limits: Limits, file: Path | None = None
    ) -> SqliteDatabase:
        """Create a database."""
        return SqliteDatabase(tables, limits, file)

    def close(self) -> None:
        """Do nothing: no resources are held between databases."""
