"""Training tasks from question-SQL pairs, such as those of BIRD and Spider.

The paper derives database tasks from BIRD (AgentTuning, section 2.1.1, Task Derivation).
The right answer, or for a change the right state, is the result of the reference statement on the
same backend. A record of the JSON Lines file:

    {"question": "...", "sql": "...", "evidence": "...",
     "tables": [{"name": "...", "columns": ["a", {"name": "b", "type": "INTEGER"}],
                 "rows": [["x", 1], ...]}, ...]}

or, instead of `tables`, `"database": "file.sqlite"` (relative to the JSON Lines file) or
BIRD's `"db_id": "x"`, which stands for `databases/x/x.sqlite`. `SQL` and `query` are read
as `sql`; `evidence` and `thought` may be absent.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from dataset_builders.environments.data import find_data
from dataset_builders.environments.database.engine import quote_name
from dataset_builders.environments.database.problems import (
    CHANGES,
    Problem,
    check_names,
    read_records,
    take,
)
from dataset_builders.environments.database.tables import LARGE, Column, Table
from dataset_builders.errors import ConfigError, DataError

FILE = "pairs.jsonl"
DATA_NAMES = ("database_pairs",)
_WHAT = "a JSON Lines file of questions, SQL and tables (docs/tasks/held-in/database.md says how)"

_TASK_ID = re.compile(r"database-train-pairs-(\d{5,})")
_TYPES = {"INT": "INTEGER"} | dict.fromkeys(("REAL", "FLOA", "DOUB", "NUM", "DEC"), "REAL")
_ASKING = ("SELECT", "VALUES")
_CHANGE_AFTER_WITH = re.compile(r"\)\s*(?:INSERT|UPDATE|DELETE|REPLACE)\s", re.IGNORECASE)
_MAX_COPIED_BYTES = 64 * 2**20


class PairSource:
    """The tasks of a file of pairs, all in split "train".

    Args:
        data: The file, or a folder that holds `pairs.jsonl`, or None to search for it.
    """

    def __init__(self, data: str | Path | None) -> None:
        self._data = data

    @cached_property
    def file(self) -> Path:
        """The file of pairs."""
        if self._data is not None and Path(self._data).is_file():
            return Path(self._data)
        return find_data("database", self._data, DATA_NAMES, [FILE], _WHAT) / FILE

    @cached_property
    def _records(self) -> list[tuple[str, dict[str, Any]]]:
        return _checked(self.file, self.file.stat().st_mtime_ns)

    def task_ids(self, split: str) -> tuple[str, ...]:
        """Return ids such as "database-train-pairs-00000"."""
        if split != "train":
            raise ConfigError(f"split {split!r} is unknown; pairs of question and SQL have: train")
        return tuple(f"database-train-pairs-{index:05d}" for index in range(len(self._records)))

    def problem(self, task_id: str) -> Problem:
        """Return the problem with an id."""
        found = _TASK_ID.fullmatch(task_id)
        if found is None or int(found.group(1)) >= len(self._records):
            expected = "one such as database-train-pairs-00000"
            raise ConfigError(f"task {task_id!r} is unknown; expected {expected}")
        where, record = self._records[int(found.group(1))]
        sql = _statement(record, where)
        kind, changes = _kind(sql, where)
        tables, file = _tables(record, where, self.file.parent, copied=changes)
        question = "\n".join(filter(None, (record["question"], record.get("evidence"))))
        return Problem(
            kind=kind,
            question=question,
            observation=f"{question}\n{describe(tables)}",
            tables=tables,
            changes=changes,
            sql=sql,
            thought=record.get("thought") or "I put the question into one statement.",
            file=file,
            limits=LARGE,
        )


def describe(tables: tuple[Table, ...]) -> str:
    """List the tables and their headers, in words."""
    named = [
        f"{table.name} and has the headers {', '.join(column.name for column in table.columns)}."
        for table in tables
    ]
    if len(named) == 1:
        return f"The table is named {named[0]}"
    lines = (f"Table {number} is named {text}" for number, text in enumerate(named, start=1))
    return "\n".join((f"There are {len(named)} tables.", *lines))


@lru_cache(maxsize=4)  # Many concurrent episodes read one file.
def _checked(path: Path, _changed: int) -> list[tuple[str, dict[str, Any]]]:
    records = list(read_records(path))
    for where, record in records:
        take(record, "question", str, where)
        for key in ("evidence", "thought"):
            take({key: ""} | record, key, str, where)
        _statement(record, where)
    return records


def _statement(record: dict[str, Any], where: str) -> str:
    key = next((key for key in ("sql", "SQL", "query") if key in record), "sql")
    sql = " ".join(take(record, key, str, where).split("\n")).strip()
    if not sql:
        raise DataError(f"{where}: {key}: found no statement, expected SQL")
    return sql


def _kind(sql: str, where: str) -> tuple[str, bool]:
    """Return a statement's first word, and whether it changes tables.

    Raises:
        DataError: It neither reads nor changes rows: its result would be empty, which an agent that
            does nothing would match.
    """
    kind = sql.split(maxsplit=1)[0].upper().lstrip("(")
    changes = kind in (*CHANGES, "REPLACE")
    if kind == "WITH":
        changes = _CHANGE_AFTER_WITH.search(sql) is not None
    elif not changes and not kind.startswith(_ASKING):
        expected = ", ".join((*_ASKING, "WITH", *sorted(CHANGES), "REPLACE"))
        raise DataError(f"{where}: sql: found a statement {kind[:40]}, expected {expected}")
    return kind, changes


def _tables(
    record: dict[str, Any], where: str, folder: Path, *, copied: bool
) -> tuple[tuple[Table, ...], Path | None]:
    if "tables" in record:
        tables = tuple(_table(each, where) for each in take(record, "tables", list, where))
        if not tables:
            raise DataError(f"{where}: tables: found none, expected at least one")
        return tables, None
    if "database" in record:
        file = folder / take(record, "database", str, where)
    elif "db_id" in record:
        name = take(record, "db_id", str, where)
        file = folder / "databases" / name / f"{name}.sqlite"
    else:
        raise DataError(f"{where}: found none of tables, database, db_id, expected one of them")
    if not file.is_file():
        raise DataError(f"{where}: found no file {file}, expected an SQLite database")
    if copied and file.stat().st_size > _MAX_COPIED_BYTES:
        raise DataError(f"{where}: {file} has over {_MAX_COPIED_BYTES} bytes: too large to copy")
    try:
        tables = read_tables(file, rows=copied)
    except sqlite3.Error as error:
        raise DataError(f"{where}: {file}: {error}, expected an SQLite database") from error
    return tables, None if copied else file


def _table(given: Any, where: str) -> Table:
    if not isinstance(given, dict):
        raise DataError(f"{where}: tables: found {type(given).__name__}, expected objects")
    name = take(given, "name", str, where)
    columns = tuple(_column(each, where) for each in take(given, "columns", list, where))
    names = [column.name.lower() for column in columns]
    if not columns or len(set(names)) < len(names):
        raise DataError(f"{where}: {name}: columns: found {names}, expected different names")
    check_names(name, (column.name for column in columns), where)
    rows = []
    for number, row in enumerate(take(given, "rows", list, where)):
        if not isinstance(row, list) or len(row) != len(columns):
            found = f"{len(row)} values" if isinstance(row, list) else type(row).__name__
            raise DataError(
                f"{where}: {name}: row {number}: found {found}, expected {len(columns)} values"
            )
        if not all(map(_storable, row)):
            expected = "text, numbers of 64 bits or null"
            raise DataError(f"{where}: {name}: row {number}: found {row}, expected {expected}")
        rows.append(tuple(row))
    return Table(name, columns, tuple(rows))


def _storable(cell: Any) -> bool:
    if isinstance(cell, int):
        return abs(cell) < 2**63
    return cell is None or isinstance(cell, str | float)


def _column(given: Any, where: str) -> Column:
    if isinstance(given, str):
        return Column(given)
    if not isinstance(given, dict):
        raise DataError(f"{where}: columns: found {type(given).__name__}, expected names")
    return Column(take(given, "name", str, where), _affinity(str(given.get("type", ""))))


def _affinity(declared: str) -> str:
    return next((kind for part, kind in _TYPES.items() if part in declared.upper()), "TEXT")


def read_tables(file: Path, *, rows: bool) -> tuple[Table, ...]:
    """Read an SQLite file's tables.

    Args:
        file: The file, opened read-only.
        rows: Whether to read the rows too, not only the headers.

    Raises:
        sqlite3.Error: It is not an SQLite file.
    """
    with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        listed = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid"
        names = [name for (name,) in connection.execute(listed)]
        tables = []
        for name in (name for name in names if not name.startswith("sqlite_")):
            header = connection.execute(f"PRAGMA table_info({quote_name(name)})").fetchall()
            columns = tuple(Column(row[1], _affinity(row[2] or "")) for row in header)
            read = connection.execute(f"SELECT * FROM {quote_name(name)}") if rows else ()
            tables.append(Table(name, columns, tuple(map(tuple, read))))
        return tuple(tables)
