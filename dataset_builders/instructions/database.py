"""Self-Instruct for the database environment: question, tables, solution and check.

BIRD and Spider contain only questions, so INSERT, UPDATE and DELETE come from here. Records have
the format of the environment's pairs (`environments.database.pairs`), plus `answer` or `check`,
which the solution was verified against.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from dataset_builders.environments import EnvironmentSpec, load_environment
from dataset_builders.environments.database.answers import answer_matches
from dataset_builders.environments.database.engine import SqliteDatabase
from dataset_builders.environments.database.environment import (
    AGENTBENCH,
    ANSWER,
    DatabaseEnvironment,
)
from dataset_builders.environments.database.pairs import FILE
from dataset_builders.environments.database.problems import CHANGES
from dataset_builders.environments.database.tables import (
    Column,
    StatementError,
    Table,
)
from dataset_builders.environments.database.tasks import SPLIT_SIZES, make_task
from dataset_builders.errors import DataError, SourceNotFoundError
from dataset_builders.instructions.files import read_lines, write_lines
from dataset_builders.instructions.proposals import Proposal, Section, code_of, text_of
from dataset_builders.instructions.task_kinds import EVALUATION_SPLITS, Record
from dataset_builders.instructions.verification import SOLUTION_FAILS

ANSWER_DIFFERS = "answer_differs"
PASSES_BEFORE = "check_passes_before"
CHECK_FAILS = "check_fails"

# "007" and "1e5" are text: as numbers they would be formatted differently.
_INTEGER = re.compile(r"-?(?:0|[1-9]\d{0,14})")
_REAL = re.compile(r"-?(?:0|[1-9]\d{0,9})(?:\.\d{1,6})?")

_MAX_ROWS = 100
_NUM_SEEDS = 200


class DatabaseTasks:
    """Tasks of the database environment."""

    name: ClassVar[str] = "database"
    prompt: ClassVar[str] = "self_instruct_database"
    idlers: ClassVar[Sequence[Sequence[str]]] = ((f"{ANSWER}\n[]",), (f'{ANSWER}\n["done"]',))

    def read(self, proposal: Proposal) -> Record:
        """Parse the task that a model proposes.

        Raises:
            DataError: A section is missing or invalid.
        """
        sql = " ".join(code_of(proposal, "solution").split("\n")).strip()
        tables = [_read_table(section) for section in proposal if section.title == "table"]
        if not tables or len({table["name"].lower() for table in tables}) < len(tables):
            raise DataError(f"table: found {len(tables)}, expected some of different names")
        record: Record = {"question": text_of(proposal, "task"), "sql": sql, "tables": tables}
        if _changes(record):
            check = " ".join(code_of(proposal, "check").split())
            return record | {"check": check}
        if not sql.upper().startswith(("SELECT", "WITH")):
            raise DataError("solution: expected SELECT, INSERT, UPDATE or DELETE")
        return record | {"answer": _read_answer(text_of(proposal, "answer"))}

    def show(self, record: Record) -> str | None:
        """Format a task as `read` parses it; None if that is impossible."""
        tables = record.get("tables")
        if not tables or not record.get("sql"):
            return None
        parts = ["### Task", self.instruction(record)]
        for table in tables:
            parts += [f"### Table {table['name']}", f"```csv\n{_write_csv(table)}```"]
        parts += ["### Solution", _fenced(record["sql"])]
        if isinstance(record.get("check"), str):
            return "\n".join([*parts, "### Check", _fenced(record["check"])])
        if isinstance(record.get("answer"), list) and not _changes(record):
            answer = json.dumps(record["answer"], ensure_ascii=False)
            return "\n".join([*parts, "### Answer", answer])
        return None

    def instruction(self, record: Record) -> str:
        """Return the task's own text."""
        return str(record["question"]).strip()

    def changes(self, record: Record) -> bool:
        """Whether the task requires a change, not an answer."""
        return _changes(record)

    def refuse(self, record: Record) -> str:
        """Verify the solution against the check, on SQLite.

        Returns:
            "": they agree. `SOLUTION_FAILS`: SQLite rejects the statement.
            `ANSWER_DIFFERS`: its result is not the stated answer. `PASSES_BEFORE`: the check
            holds before the change. `CHECK_FAILS`: it does not hold after it, or is not a statement
            that gives one value.
        """
        try:
            database = SqliteDatabase([_table(each) for each in record["tables"]])
        except StatementError:
            return SOLUTION_FAILS
        try:
            if _changes(record):
                return _refuse_change(database, record)
            rows = database.query(record["sql"], _MAX_ROWS)
        except StatementError:
            return SOLUTION_FAILS
        finally:
            database.close()
        answer = json.dumps(record["answer"])
        return "" if answer_matches(answer, rows) else ANSWER_DIFFERS

    def write(self, folder: Path, records: Iterable[Record]) -> None:
        """Write tasks as the environment's file of pairs."""
        write_lines(folder / FILE, records)

    def environment(self, folder: Path) -> EnvironmentSpec:
        """Return the database environment with these tasks as its train split."""
        return load_environment(self.name, tasks="pairs", data=str(folder / FILE))

    def train_split(self, data: str | None) -> list[Record]:
        """Read tasks of a file of pairs, or generated training tasks with an answer.

        Raises:
            SourceNotFoundError: There is no such file.
            DataError: A line is not such a record.
        """
        if data is not None:
            given = Path(data)
            file = given / FILE if given.is_dir() else given
            return [record for _, record in read_lines(file, "question")]
        tasks = (make_task("train", index) for index in range(SPLIT_SIZES["train"]))
        answered = [task for task in tasks if not task.changes][:_NUM_SEEDS]
        return [
            {
                "question": task.question,
                "sql": task.sql,
                "tables": [_given(task.table)],
                "answer": list(task.label),
            }
            for task in answered
        ]

    def evaluation(self) -> list[str]:
        """Return questions of the generated evaluation splits, and of AgentBench's if available."""
        asked = [
            make_task(split, index).question
            for split in EVALUATION_SPLITS
            for index in range(SPLIT_SIZES[split])
        ]
        world = DatabaseEnvironment(tasks=AGENTBENCH)
        try:
            for split in EVALUATION_SPLITS:
                asked += [world.problem(each).question for each in world.task_ids(split)]
        except SourceNotFoundError:
            pass
        finally:
            world.close()
        return asked


def _changes(record: Record) -> bool:
    return str(record["sql"]).split(maxsplit=1)[0].upper() in CHANGES


def _refuse_change(database: SqliteDatabase, record: Record) -> str:
    if _holds(database, record["check"]):
        return PASSES_BEFORE
    database.query(record["sql"], _MAX_ROWS)
    return "" if _holds(database, record["check"]) else CHECK_FAILS


def _holds(database: SqliteDatabase, check: str) -> bool:
    if not check.upper().startswith(("SELECT", "WITH")):
        return False
    try:
        rows = database.query(check, _MAX_ROWS)
    except StatementError:
        return False
    return len(rows) == 1 and len(rows[0]) == 1 and rows[0][0] not in (None, 0, "", "0")


def _read_answer(text: str) -> list[Any]:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, list) or not answer:
        raise DataError(f"answer: found {text[:60]!r}, expected a JSON list of values")
    return answer


def _read_table(section: Section) -> dict[str, Any]:
    name = section.argument.strip("`\"' ")
    rows = list(csv.reader(io.StringIO(section.code or ""), skipinitialspace=True))
    rows = [row for row in rows if row]
    if not name.isidentifier() or len(rows) < 2 or any(len(row) != len(rows[0]) for row in rows):
        raise DataError(f"table {name}: expected a name and CSV with rows of one length")
    headers = [header.strip() for header in rows[0]]
    if not all(headers) or len({header.lower() for header in headers}) < len(headers):
        raise DataError(f"table {name}: found headers {headers}, expected different names")
    columns, cells = [], []
    for header, values in zip(headers, zip(*rows[1:], strict=True), strict=True):
        kind, typed = _typed(values)
        columns.append({"name": header, "type": kind})
        cells.append(typed)
    return {
        "name": name,
        "columns": columns,
        "rows": [list(row) for row in zip(*cells, strict=True)],
    }


def _typed(values: Sequence[str]) -> tuple[str, list[str | int | float | None]]:
    """Infer a column's type, the narrowest that preserves every cell's text; empty is NULL."""
    filled = [value for value in values if value.strip()]
    if all(map(_INTEGER.fullmatch, filled)):
        return "INTEGER", [int(value) if value.strip() else None for value in values]
    if all(map(_REAL.fullmatch, filled)):
        return "REAL", [float(value) if value.strip() else None for value in values]
    return "TEXT", [value if value.strip() else None for value in values]


def _table(given: dict[str, Any]) -> Table:
    columns = tuple(Column(column["name"], column["type"]) for column in given["columns"])
    return Table(given["name"], columns, tuple(map(tuple, given["rows"])))


def _given(table: Table) -> dict[str, Any]:
    columns = [{"name": column.name, "type": column.affinity} for column in table.columns]
    return {"name": table.name, "columns": columns, "rows": [list(row) for row in table.rows]}


def _write_csv(table: dict[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [column["name"] if isinstance(column, dict) else column for column in table["columns"]]
    writer.writerows([names, *table["rows"]])
    return text.getvalue()


def _fenced(sql: str) -> str:
    return f"```sql\n{sql}\n```"
