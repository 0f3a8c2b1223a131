"""WebArena's task configs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from dataset_builders.environments.data import find_data
from dataset_builders.errors import DataError

FILE = "test.raw.json"
KINDS = ("string_match", "url_match", "program_html")
ORDER_SEED = 0
"""Of the order of the tasks, which lie sorted by site and template in the file."""


@dataclass(frozen=True, slots=True)
class Task:
    """A WebArena task.

    Attributes:
        number: Its `task_id`.
        intent: Its instruction.
        sites: Names of the sites it needs.
        kinds: How it is scored, from `KINDS`.
        answers: The right answers by comparison method.
        url: Right final URLs, with names for the sites in them.
        note: Why an impossible task is impossible.
    """

    number: int
    intent: str
    sites: tuple[str, ...]
    kinds: tuple[str, ...]
    answers: dict[str, Any]
    url: str
    note: str

    @property
    def needs_judge(self) -> bool:
        """Whether scoring the answer needs a judge."""
        return isinstance(self.answers.get("fuzzy_match"), list)


def find_tasks(data: str | Path | None) -> Path:
    """Return the file of the tasks; see `find_data`."""
    what = f"WebArena's config_files/{FILE} (web-arena-x/webarena)"
    return find_data("web_arena", data, ("webarena", "web_arena"), (FILE,), what) / FILE


@lru_cache(maxsize=2)
def read_tasks(file: Path) -> dict[int, Task]:
    """Read the tasks by number, in an order of which every prefix is a representative sample.

    Raises:
        DataError: The file is not JSON, or a record lacks a field.
    """
    try:
        rows = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise DataError(f"{file}: {error}") from error
    if not isinstance(rows, list):
        raise DataError(f"{file}: found {type(rows).__name__}, expected a list of tasks")
    tasks = [_task(file, number, row) for number, row in enumerate(rows)]
    Random(ORDER_SEED).shuffle(tasks)
    return {task.number: task for task in tasks}


def _task(file: Path, number: int, row: Any) -> Task:
    try:
        scored = row["eval"]
        kinds = tuple(scored["eval_types"])
        if unknown := [kind for kind in kinds if kind not in KINDS]:
            raise DataError(
                f"{file}: record {number}: eval_types: found {unknown[0]!r}, "
                f"expected {', '.join(KINDS)}"
            )
        return Task(
            int(row["task_id"]),
            str(row["intent"]),
            tuple(row["sites"]),
            kinds,
            scored["reference_answers"] or {},
            str(scored["reference_url"] or ""),
            str(scored.get("string_note", "")),
        )
    except (KeyError, TypeError) as error:
        raise DataError(f"{file}: record {number}: found no {error}, expected a task") from error
