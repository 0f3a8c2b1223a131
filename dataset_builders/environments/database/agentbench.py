"""AgentBench's own tasks (dbbench), read from a user's folder.

`standard.jsonl` is the split "test", `dev.jsonl` the split "dev"; there are no training
tasks. The data has the SQL statement for changes only, and the right answer for all.
"""

from __future__ import annotations

import re
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from dataset_builders.environments.data import find_data
from dataset_builders.environments.database.problems import (
    CHANGES,
    Problem,
    check_names,
    read_records,
    take,
)
from dataset_builders.environments.database.tables import LARGE, Column, Table
from dataset_builders.errors import ConfigError, DataError, SourceNotFoundError

FILES = {"test": "standard.jsonl", "dev": "dev.jsonl"}
DATA_NAMES = ("dbbench",)
_WHAT = "AgentBench's dbbench files (its repository, folder data/dbbench)"

_TASK_ID = re.compile(r"database-(test|dev)-agentbench-(\d{3,})")
_ANSWER_MD5 = re.compile(r"\[\('([0-9a-f]{32})',\)\]")
_TEXT = "TEXT COLLATE NOCASE"
"""MySQL compares text case-insensitively."""


class AgentBenchSource:
    """The tasks of a dbbench folder.

    Args:
        data: The folder, or None to search for it.
    """

    def __init__(self, data: str | Path | None) -> None:
        self._data = data

    @cached_property
    def folder(self) -> Path:
        """Folder of the files."""
        return find_data("database", self._data, DATA_NAMES, [FILES["test"]], _WHAT)

    def task_ids(self, split: str) -> tuple[str, ...]:
        """Return ids such as "database-test-agentbench-000"."""
        return tuple(
            f"database-{split}-agentbench-{index:03d}" for index in range(len(self._read(split)))
        )

    def problem(self, task_id: str) -> Problem:
        """Return the problem with an id."""
        found = _TASK_ID.fullmatch(task_id)
        problems = self._read(found.group(1)) if found else ()
        if found is None or int(found.group(2)) >= len(problems):
            expected = "one such as database-test-agentbench-000"
            raise ConfigError(f"task {task_id!r} is unknown; expected {expected}")
        return problems[int(found.group(2))]

    def malformed(self, split: str) -> dict[str, str]:
        """Return tasks whose table MySQL cannot create as given, and why.

        As in AgentBench, they count and are scored by their label. A table with unusable
        headers does not exist; one with rows of another width is empty.
        """
        problems = zip(self.task_ids(split), self._read(split), strict=True)
        return {task_id: problem.malformed for task_id, problem in problems if problem.malformed}

    def _read(self, split: str) -> tuple[Problem, ...]:
        if split not in FILES:
            raise ConfigError(
                f"split {split!r} is unknown; AgentBench's database tasks have: {', '.join(FILES)}"
            )
        path = self.folder / FILES[split]
        if not path.exists():
            raise SourceNotFoundError(f"{path}: not found; it holds the split {split!r}")
        return _problems(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)  # Many concurrent episodes read one file.
def _problems(path: Path, _changed: int) -> tuple[Problem, ...]:
    return tuple(_problem(record, where) for where, record in read_records(path))


def _problem(record: dict[str, Any], where: str) -> Problem:
    kinds, label = take(record, "type", list, where), take(record, "label", list, where)
    if not kinds or not all(isinstance(value, str) for value in (kinds[0], *label)):
        raise DataError(f"{where}: type, label: found {kinds}, {label}, expected lists of text")
    question = take(record, "description", str, where)
    tables, malformed = _tables(take(record, "table", dict, where), where)
    changes = kinds[0] in CHANGES
    state = _ANSWER_MD5.fullmatch(take(record, "answer_md5", str, where)) if changes else None
    if changes and state is None:
        found = record["answer_md5"]
        raise DataError(f"{where}: answer_md5: found {found!r}, expected [('32 digits',)]")
    return Problem(
        kind=kinds[0],
        question=question,
        observation=f"{question}\n{take(record, 'add_description', str, where)}",
        tables=tables,
        changes=changes,
        sql=label[0] if changes and label else "",
        label=tuple(label),
        state=state.group(1) if state else None,
        limits=LARGE,
        agentbench=True,
        malformed=malformed,
    )


def _tables(given: dict[str, Any], where: str) -> tuple[tuple[Table, ...], str]:
    name = take(given, "table_name", str, where)
    info = take(given, "table_info", dict, where)
    columns = take(info, "columns", list, where)
    names = [take(column, "name", str, where) for column in columns if isinstance(column, dict)]
    rows = take(info, "rows", list, where)
    if len(names) != len(columns) or not all(isinstance(row, list) for row in rows):
        raise DataError(f"{where}: table_info: expected columns as objects and rows as lists")
    repeated = sorted({each for each in names if _folded(names).count(each.lower()) > 1})
    if repeated or not all(each.strip() for each in names) or not names:
        return (), f"headers: found {repeated or names}, expected different names"
    check_names(name, names, where)
    widths = {len(row) for row in rows} - {len(names)}
    table = Table(name, tuple(Column(each, _TEXT) for each in names))
    if widths:
        return (table,), f"rows: found {min(widths)} values, expected {len(names)}"
    cells = tuple(tuple(str(cell) for cell in row) for row in rows)
    return (Table(name, table.columns, cells),), ""


def _folded(names: list[str]) -> list[str]:
    return [name.lower() for name in names]
