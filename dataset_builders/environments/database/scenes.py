"""Draw tables from a theme, and conditions on their rows, for the DB task generator."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise

from dataset_builders.environments.database.tables import Column, Table, Value
from dataset_builders.environments.database.themes import NumberColumn, TextColumn, Theme


@dataclass(frozen=True, slots=True)
class Scene:
    """A drawn table, with the columns it was drawn from.

    Attributes:
        rng: The task's random number generator.
        table: The table.
        key: The column whose values are unique.
        columns: All columns, in the table's order.
    """

    rng: random.Random
    table: Table
    key: TextColumn
    columns: tuple[TextColumn | NumberColumn, ...]

    def values(self, name: str) -> list[Value]:
        """Return a column's cells, from the first row to the last."""
        index = [column.name for column in self.columns].index(name)
        return [row[index] for row in self.table.rows]

    def others(self) -> list[TextColumn | NumberColumn]:
        """Return the columns that are not the key."""
        return [column for column in self.columns if column is not self.key]

    def numbers(self) -> list[NumberColumn]:
        """Return the numeric columns."""
        return [column for column in self.columns if isinstance(column, NumberColumn)]


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on rows.

    Attributes:
        words: Its text in a question.
        sql: Its text in a WHERE clause.
        matches: Rows that meet it.
    """

    words: str
    sql: str
    matches: int


def literal(value: Value) -> str:
    """Format a value as SQL."""
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)


def draw_value(rng: random.Random, column: TextColumn | NumberColumn) -> Value:
    """Draw a valid value for a column."""
    if isinstance(column, TextColumn):
        return rng.choice(column.values)
    return column.value(rng.randint(column.low, column.high))


def _draw_cells(
    rng: random.Random, column: TextColumn | NumberColumn, count: int, *, unique: bool
) -> list[Value]:
    """Draw a column's cells: numbers never repeat, each of three texts occurs at least once.

    So there is always a condition that few rows meet, and one that not all rows meet.
    """
    if isinstance(column, NumberColumn):
        units = rng.sample(range(column.low, column.high + 1), count)
        return [column.value(unit) for unit in units]
    if unique:
        return list(rng.sample(column.values, count))
    some = rng.sample(column.values, 3)
    cells: list[Value] = [*some, *(rng.choice(some) for _ in range(count - len(some)))]
    rng.shuffle(cells)
    return cells


def draw_scene(rng: random.Random, theme: Theme) -> Scene:
    """Draw a table of 5 to 8 rows: the key, 1 or 2 texts and 1 or 2 numbers, in any order."""
    num_texts, num_numbers = rng.choice([(1, 1), (1, 2), (2, 1)])
    columns: list[TextColumn | NumberColumn] = [theme.key]
    columns += rng.sample(theme.texts, num_texts)
    columns += rng.sample(theme.numbers, num_numbers)
    rng.shuffle(columns)
    count = rng.randint(5, 8)
    cells = [_draw_cells(rng, c, count, unique=c is theme.key) for c in columns]
    table = Table(
        name=rng.choice(theme.tables),
        columns=tuple(Column(column.name, _affinity(column)) for column in columns),
        rows=tuple(zip(*cells, strict=True)),
    )
    return Scene(rng=rng, table=table, key=theme.key, columns=tuple(columns))


def _affinity(column: TextColumn | NumberColumn) -> str:
    if isinstance(column, TextColumn):
        return "TEXT"
    return "REAL" if column.tenths else "INTEGER"


def draw_condition(scene: Scene, most: int) -> Condition:
    """Draw a condition that at least one and at most `most` rows meet."""
    found: list[Condition] = []
    # Draw the column first, then a condition: otherwise numeric columns, which have many
    # thresholds, would dominate.
    columns = scene.others()
    scene.rng.shuffle(columns)
    for column in columns:
        every = _equalities(scene, column) + _thresholds(scene, column)
        found = [condition for condition in every if 1 <= condition.matches <= most]
        if found:
            break
    return scene.rng.choice(found)


def _equalities(scene: Scene, column: TextColumn | NumberColumn) -> list[Condition]:
    if isinstance(column, NumberColumn):
        return []
    cells = scene.values(column.name)
    return [
        Condition(
            words=f"{column.name} is {literal(value)}",
            sql=f"{column.name} = {literal(value)}",
            matches=cells.count(value),
        )
        for value in dict.fromkeys(cells)
    ]


def _thresholds(scene: Scene, column: TextColumn | NumberColumn) -> list[Condition]:
    if isinstance(column, TextColumn):
        return []
    cells = [cell for cell in scene.values(column.name) if isinstance(cell, int | float)]
    sign, word = scene.rng.choice([(">", "above"), ("<", "below")])
    ordered = sorted(cells)
    # With a bound that no row has, it does not matter whether "above" includes it.
    bounds = [(low, int((low + high) / 2), high) for low, high in pairwise(ordered)]
    return [
        Condition(
            words=f"{column.name} is {word} {bound}",
            sql=f"{column.name} {sign} {bound}",
            matches=sum(cell > bound if sign == ">" else cell < bound for cell in cells),
        )
        for low, bound, high in bounds
        if low < bound < high
    ]
