"""Generator of DB tasks: a small table, a question about it, and the SQL that solves it.

It replaces the paper's self-instructed and derived DB tasks (AgentTuning, section
2), which need GPT-4 and the BIRD data set. Every task is a pure function of its split
and index.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from dataset_builders.environments.database.engine import SqliteDatabase
from dataset_builders.environments.database.scenes import (
    Scene,
    draw_condition,
    draw_scene,
    draw_value,
    literal,
)
from dataset_builders.environments.database.tables import Table, Value
from dataset_builders.environments.database.themes import themes

SPLIT_SIZES = {"train": 2000, "dev": 100, "test": 200}
"""Number of tasks per split."""

CHANGE_ANSWER = "done"
"""The oracle's answer after a change; AgentBench accepts any answer there."""

_MAX_LISTED = 3


@dataclass(frozen=True, slots=True)
class DatabaseTask:
    """One task.

    Attributes:
        table: The initial table.
        kind: One of `KINDS`.
        question: The question, which names the columns.
        thought: One sentence that leads to the statement.
        sql: The statement that solves the task, in one line.
        changes: Whether the table's state is compared, not the answer.
        result: Rows that the statement returns; none for a change.
    """

    table: Table
    kind: str
    question: str
    thought: str
    sql: str
    changes: bool
    result: tuple[tuple[Value, ...], ...]

    @property
    def label(self) -> tuple[str, ...]:
        """Values of the right answer as text; for a change, `CHANGE_ANSWER`."""
        return (CHANGE_ANSWER,) if self.changes else tuple(str(row[0]) for row in self.result)


@dataclass(frozen=True, slots=True)
class _Draft:
    question: str
    thought: str
    sql: str


def _lookup(scene: Scene) -> _Draft:
    key, column = scene.key.name, scene.rng.choice(scene.others()).name
    value = literal(scene.rng.choice(scene.values(key)))
    form = scene.rng.choice(
        [
            "What is the {column} where {key} is {value}?",
            "Find the {column} where {key} is {value}.",
        ]
    )
    return _Draft(
        question=form.format(column=column, key=key, value=value),
        thought=f"I select {column} from {scene.table.name} where {key} = {value}.",
        sql=f"SELECT {column} FROM {scene.table.name} WHERE {key} = {value}",
    )


def _count(scene: Scene) -> _Draft:
    condition = draw_condition(scene, len(scene.table.rows) - 1)
    form = scene.rng.choice(
        [
            "How many rows are there where {words}?",
            "Count the rows where {words}.",
        ]
    )
    return _Draft(
        question=form.format(words=condition.words),
        thought=f"I count the rows of {scene.table.name} where {condition.sql}.",
        sql=f"SELECT COUNT(*) FROM {scene.table.name} WHERE {condition.sql}",
    )


def _aggregate(scene: Scene) -> _Draft:
    column = scene.rng.choice(scene.numbers())
    choices = [("MAX", "maximum"), ("MIN", "minimum")]
    if not column.tenths:  # A sum of tenths would show binary rounding errors.
        choices.append(("SUM", "sum"))
        cells = [cell for cell in scene.values(column.name) if isinstance(cell, int)]
        if sum(cells) % len(cells) == 0:  # otherwise the answer would be a long fraction
            choices.append(("AVG", "average"))
    function, word = scene.rng.choice(choices)
    form = scene.rng.choice(["What is the {word} of {column}?", "Compute the {word} of {column}."])
    return _Draft(
        question=form.format(word=word, column=column.name),
        thought=f"I compute {function}({column.name}) of {scene.table.name}.",
        sql=f"SELECT {function}({column.name}) FROM {scene.table.name}",
    )


def _list(scene: Scene) -> _Draft:
    key, condition = scene.key.name, draw_condition(scene, _MAX_LISTED)
    form = scene.rng.choice(
        [
            "List the {key} of every row where {words}.",
            "Show each {key} where {words}.",
        ]
    )
    return _Draft(
        question=form.format(key=key, words=condition.words),
        thought=f"I list {key} from {scene.table.name} where {condition.sql}.",
        sql=f"SELECT {key} FROM {scene.table.name} WHERE {condition.sql}",
    )


def _insert(scene: Scene) -> _Draft:
    used = scene.values(scene.key.name)
    free = [value for value in scene.key.values if value not in used]
    row = [
        scene.rng.choice(free) if column is scene.key else draw_value(scene.rng, column)
        for column in scene.columns
    ]
    values = ", ".join(map(literal, row))
    form = scene.rng.choice(["Add a row with {values}.", "Insert a row with {values}."])
    table = scene.table.name
    return _Draft(
        question=form.format(values=values),
        thought=f"I insert one row with all its values into {table}.",
        sql=f"INSERT INTO {table} VALUES ({values})",
    )


def _update(scene: Scene) -> _Draft:
    key, column = scene.key.name, scene.rng.choice(scene.others())
    index = scene.rng.randrange(len(scene.table.rows))
    value, old = scene.values(key)[index], scene.values(column.name)[index]
    new = old
    while new == old:
        new = draw_value(scene.rng, column)
    form = scene.rng.choice(
        [
            "Set {column} to {new} where {key} is {value}.",
            "Change {column} to {new} where {key} is {value}.",
        ]
    )
    setting, where = f"{column.name} = {literal(new)}", f"{key} = {literal(value)}"
    return _Draft(
        question=form.format(column=column.name, new=literal(new), key=key, value=literal(value)),
        thought=f"I update {scene.table.name} and set {setting} where {where}.",
        sql=f"UPDATE {scene.table.name} SET {setting} WHERE {where}",
    )


def _delete(scene: Scene) -> _Draft:
    condition = draw_condition(scene, len(scene.table.rows) - 1)
    form = scene.rng.choice(
        [
            "Delete the rows where {words}.",
            "Remove every row where {words}.",
        ]
    )
    return _Draft(
        question=form.format(words=condition.words),
        thought=f"I delete the rows of {scene.table.name} where {condition.sql}.",
        sql=f"DELETE FROM {scene.table.name} WHERE {condition.sql}",
    )


_WRITERS: dict[str, Callable[[Scene], _Draft]] = {
    "lookup": _lookup,
    "insert": _insert,
    "count": _count,
    "update": _update,
    "aggregate": _aggregate,
    "delete": _delete,
    "list": _list,
}
_CHANGES = frozenset({"insert", "update", "delete"})

KINDS = tuple(_WRITERS)
"""Kinds of tasks; the kind of a task is its index modulo their number."""


def make_task(split: str, index: int) -> DatabaseTask:
    """Generate a task.

    Args:
        split: "train", "dev" or "test".
        index: Number within the split, from 0.

    Returns:
        The task, identical on every call, machine and Python version.
    """
    # String seeds are hashed by SHA-512, not by the salted hash().
    rng = random.Random(f"agenttuning/database/{split}/{index}")
    kind = KINDS[index % len(KINDS)]
    scene = draw_scene(rng, rng.choice(themes(split)))
    draft = _WRITERS[kind](scene)
    return DatabaseTask(
        table=scene.table,
        kind=kind,
        question=draft.question,
        thought=draft.thought,
        sql=draft.sql,
        changes=kind in _CHANGES,
        result=() if kind in _CHANGES else _run(scene.table, draft.sql),
    )


def _run(table: Table, sql: str) -> tuple[tuple[Value, ...], ...]:
    database = SqliteDatabase([table])
    try:
        return tuple(database.query(sql, len(table.rows)))
    finally:
        database.close()
