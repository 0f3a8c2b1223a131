"""A database task of any origin, and helpers to read task files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dataset_builders.environments.database.tables import SMALL, Limits, Table
from dataset_builders.errors import DataError

CHANGES = frozenset({"INSERT", "UPDATE", "DELETE"})
"""First words of statements that are scored by the tables' state."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One task.

    Attributes:
        kind: Kind of task, such as "lookup", "INSERT" or "counting".
        question: The question.
        observation: First observation: the question and the headers.
        tables: Initial tables.
        changes: Whether the tables' state is compared, not the answer.
        sql: The reference statement; "" if unknown.
        label: Values of the right answer as text; None if the reference
            statement must be run to get them.
        result: Rows of the right answer, which `answers.answer_matches` compares; None
            where the reference statement has to be run for them.
        state: Hash of the tables after the change; None where the reference statement has
            to be run for it.
        thought: A sentence that leads to the statement.
        file: SQLite file that holds the tables' rows, which are then not in `tables`.
        limits: What a statement may use.
        agentbench: Whether AgentBench.old's own rules score the episode.
        malformed: What is wrong with the tables, where the data gives unusable ones.
    """

    kind: str
    question: str
    observation: str
    tables: tuple[Table, ...]
    changes: bool
    sql: str = ""
    label: tuple[str, ...] | None = None
    result: tuple[tuple[object, ...], ...] | None = None
    state: str | None = None
    thought: str = "I run one statement on the table."
    file: Path | None = None
    limits: Limits = field(default=SMALL)
    agentbench: bool = False
    malformed: str = ""


class ProblemSource(Protocol):
    """A set of problems, by split."""

    def task_ids(self, split: str) -> tuple[str, ...]:
        """Return the ids of a split's problems; an unknown split is a ConfigError."""

    def problem(self, task_id: str) -> Problem:
        """Return the problem with an id; an unknown one is a ConfigError."""


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a JSON Lines file.

    Yields:
        The location of a record, such as "tasks.jsonl, line 3", and the record.

    Raises:
        DataError: A line is not a JSON object, or not UTF-8.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}, line {number}"
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: broken JSON ({error}), expected an object") from error
            if not isinstance(record, dict):
                found = type(record).__name__
                raise DataError(f"{where}: found JSON of type {found}, expected an object")
            yield where, record


_NAMES: dict[Any, str] = {str: "text", list: "a list", dict: "an object"}


def take(record: dict[str, Any], key: str, kind: Any, where: str) -> Any:
    """Return a field of a record.

    Raises:
        DataError: It is missing or of another type.
    """
    if key not in record:
        raise DataError(f"{where}: {key}: found nothing, expected {_NAMES[kind]}")
    if not isinstance(record[key], kind):
        found = type(record[key]).__name__
        raise DataError(f"{where}: {key}: found {found}, expected {_NAMES[kind]}")
    return record[key]


def check_names(table: str, columns: Iterable[str], where: str) -> None:
    """Check that SQLite can create a table with these names.

    Raises:
        DataError: SQLite reserves the name, or a name contains an invalid character.
    """
    if table.lower().startswith("sqlite_"):
        raise DataError(f"{where}: table: found {table!r}, expected a name without 'sqlite_'")
    for name in (table, *columns):
        # A lone surrogate is not valid Unicode, so it cannot be part of a statement.
        if "\0" in name or name != name.encode("utf-8", "replace").decode("utf-8"):
            raise DataError(f"{where}: table {table!r}: found {name!r}, expected a name of text")
