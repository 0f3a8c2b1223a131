"""Shared types of the database backends: tables, limits and protocols."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Value = str | int | float | None

OBSERVATION_CHARS = 800
"""Maximum characters of a result that the model is shown (AgentBench.old)."""

TRUNCATED = "[TRUNCATED]"
"""Suffix that AgentBench adds to a truncated result."""

# The shortest row, such as "(1,), ", has six characters: this many always fill a result.
_SHOWN_ROWS = 200


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Attributes:
        name: Its header.
        affinity: "TEXT", "INTEGER" or "REAL", or "TEXT COLLATE NOCASE". AgentBench makes
            every column TEXT and relies on MySQL turning text into numbers where it
            compares them with numbers. SQLite does not, so a column of numbers needs a
            numeric affinity: else '9' > '10'.
    """

    name: str
    affinity: str = "TEXT"


@dataclass(frozen=True, slots=True)
class Table:
    """A table at the start of an episode.

    Attributes:
        name: Name of the table.
        columns: At least one column.
        rows: Rows, each with one value per column.
    """

    name: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits of one statement.

    Attributes:
        instructions: Steps of SQLite's virtual machine.
        pages: Pages of 4 KiB of an in-memory SQLite database.
        length: Bytes of a value or row in SQLite.
        sql_length: Bytes of a statement in SQLite.
        state_rows: Rows of a table whose state is compared.
        seconds: Time on a server.
        bytes: Size of an episode's tables on a private server.
    """

    instructions: int
    pages: int
    length: int
    sql_length: int
    state_rows: int
    seconds: float = 2.0
    bytes: int = 256 * 2**20


SMALL = Limits(250_000, 1_000, 10_000, 2_000, 1_000)
"""Limits for the generated tables: a sensible query needs a few hundred instructions."""

LARGE = Limits(50_000_000, 50_000, 1_000_000, 20_000, 100_000)
"""Limits for the user's tables: about a second of SQLite's time."""


class StatementError(Exception):
    """A statement failed; the message is shown to the model."""


class Database(Protocol):
    """Private tables of one episode."""

    def query(self, sql: str, max_rows: int) -> Sequence[tuple[object, ...]]:
        """Run one statement and read up to `max_rows` rows, or raise StatementError."""

    def observe(self, sql: str) -> str:
        """Run one statement and return its outcome as AgentBench shows it."""

    def state_hash(self, table: Table, cut: int | None = None) -> str | None:
        """AgentBench's hash of a table; None if it, or one of its initial columns, is gone."""

    def exact_state(self, table: Table) -> str | None:
        """A hash that differs wherever the content does; None as in `state_hash`."""

    def close(self) -> None:
        """Free the database; may be called more than once."""


class Backend(Protocol):
    """Creates databases."""

    @property
    def name(self) -> str:
        """Name of the backend, for the record of a score."""

    def open(self, tables: Sequence[Table], limits: Limits, file: Path | None = None) -> Database:
        """Create a database with the tables, or over an SQLite `file` that holds them."""

    def close(self) -> None:
        """Release resources held between episodes; may be called more than once."""


def shown(query: Callable[[str, int], Sequence[tuple[object, ...]]], sql: str) -> str:
    """Format the observation of a statement.

    Returns:
        The Python text of the list of rows, "[]" where there are none, or the error; cut
        at `OBSERVATION_CHARS` characters.
    """
    try:
        text = str(list(query(sql, _SHOWN_ROWS)))
    except StatementError as error:
        text = str(error)
    if len(text) <= OBSERVATION_CHARS:
        return text
    return text[:OBSERVATION_CHARS] + TRUNCATED
