"""Generated tasks as a problem source."""

from __future__ import annotations

import re

from dataset_builders.environments.database.problems import Problem
from dataset_builders.environments.database.tasks import SPLIT_SIZES, make_task
from dataset_builders.errors import ConfigError

_TASK_ID = re.compile(r"database-([a-z]+)-(\d{4})")


class GeneratedSource:
    """The generated tasks."""

    def task_ids(self, split: str) -> tuple[str, ...]:
        """Return ids such as "database-train-0000"."""
        if split not in SPLIT_SIZES:
            raise ConfigError(f"split {split!r} is unknown; known: {', '.join(SPLIT_SIZES)}")
        return tuple(f"database-{split}-{index:04d}" for index in range(SPLIT_SIZES[split]))

    def problem(self, task_id: str) -> Problem:
        """Return the problem with an id."""
        found = _TASK_ID.fullmatch(task_id)
        if found is None or int(found.group(2)) >= SPLIT_SIZES.get(found.group(1), 0):
            expected = "one such as database-train-0000"
            raise ConfigError(f"task {task_id!r} is unknown; expected {expected}")
        task = make_task(found.group(1), int(found.group(2)))
        headers = ", ".join(column.name for column in task.table.columns)
        return Problem(
            kind=task.kind,
            question=task.question,
            observation=f"{task.question}\n"
            f"The table is named {task.table.name} and has the headers {headers}.",
            tables=(task.table,),
            changes=task.changes,
            sql=task.sql,
            label=task.label,
            result=None if task.changes else task.result,
            thought=task.thought,
        )
