"""Strict comparison of an answer with the rows of the reference statement's result.

It scores generated tasks, pairs of question and SQL, and proposed tasks (Self-Instruct):
their episodes become training data, so two different values must never count as equal. AgentBench's
own tasks are scored by AgentBench's published rule instead, which is more lenient
(`scoring.agentbench_match`).

Rows compare as a multiset: their order is free, their number is not. A cell compares by
the type that the database gives it:

- NULL equals `null`, `None` and the texts "null" and "none", in any case.
- An integer equals a number of exactly its value.
- A number with a fraction equals a number that is the same to nine digits, or that is its
  value rounded to two or more decimals with a relative error of at most 0.001.
- Text equals the same text; blanks around it do not count.
"""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from decimal import Decimal

Rows = Sequence[Sequence[object]]
"""Rows of cells as the database returns them."""

_Cell = str | None

MAX_ANSWER_CHARS = 20_000
"""A longer answer is wrong; a truncated one could be right by accident."""

_SAME = 1e-9
_ROUNDED = 1e-3
_MIN_DECIMALS = 2
_NULL_TEXTS = frozenset({"none", "null"})
_LOOSE_ITEM = re.compile(r"\"[^\"]*\"|'[^']*'|[^,]+")
_DECIMAL = re.compile(r"\bDecimal\('([-+.\deE]+)'\)")
_NUMBER = re.compile(
    r"[+-]?(?=\.?\d)(?:\d{1,3}(?:,\d{3})+|\d*)(?:\.(?P<decimals>\d*))?(?P<exponent>e[+-]?\d{1,3})?",
    re.IGNORECASE | re.ASCII,
)


def answer_matches(answer: str, rows: Rows) -> bool:
    """Whether an answer states the rows of a result.

    Args:
        answer: What follows `Final Answer:`: a JSON or Python list, such as `["12"]`,
            `[("x", 1), ("y", 2)]` or, for rows of several columns too, all values row by
            row; or one value without brackets. A bracketed list that neither syntax
            accepts is cut at its commas.
        rows: All rows of the reference statement's result, each of the same width.
    """
    # A row copied from MariaDB's output may hold Decimal('12.50').
    answer = _DECIMAL.sub(r"\1", answer.strip())
    if len(answer) > MAX_ANSWER_CHARS:
        return False
    width = len(rows[0]) if rows else 1
    return any(_same_rows(found, rows) for found in _readings(answer, width))


def _readings(answer: str, width: int) -> Iterator[list[list[_Cell]]]:
    """Return the rows that a text may mean: as a list, and as one value."""
    value = _literal(answer)
    if isinstance(value, list | tuple):
        yield from _rows(value, width)
    elif answer.startswith("[") and answer.endswith("]"):
        items = (item.strip() for item in _LOOSE_ITEM.findall(answer[1:-1]))
        yield from _rows([_unquoted(item) for item in items], width)
    elif value is None or isinstance(value, str):
        yield [[value]]
    if not answer.startswith(("[", "(")):
        yield [[answer]]


def _literal(text: str) -> object:
    """Parse JSON or Python syntax, keeping numbers as written; `...` if it is neither."""
    try:
        return json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        pass
    try:
        # An unknown escape such as "\d" is a fault of the answer, not of this program.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return ...


def _rows(items: Sequence[object], width: int) -> Iterator[list[list[_Cell]]]:
    if width == 1 or all(isinstance(item, list | tuple) for item in items):
        rows = [list(item) if isinstance(item, list | tuple) else [item] for item in items]
    elif len(items) % width:
        return
    else:
        rows = [list(items[start : start + width]) for start in range(0, len(items), width)]
    if all(_is_plain(cell) for row in rows for cell in row):
        yield [[None if cell is None else str(cell) for cell in row] for row in rows]


def _is_plain(cell: object) -> bool:
    return cell is None or isinstance(cell, str | int | float)


def _unquoted(item: str) -> str:
    quoted = len(item) > 1 and item[0] == item[-1] and item[0] in "'\""
    return item[1:-1] if quoted else item


def _same_rows(found: list[list[_Cell]], expected: Rows) -> bool:
    if len(found) != len(expected):
        return False
    left = list(expected)
    for row in found:
        index = next((i for i, other in enumerate(left) if _same_row(row, other)), None)
        if index is None:
            return False
        del left[index]
    return True


def _same_row(found: Sequence[_Cell], expected: Sequence[object]) -> bool:
    return len(found) == len(expected) and all(map(_same_cell, found, expected))


def _same_cell(found: _Cell, expected: object) -> bool:
    if expected is None:
        return found is None or found.strip().lower() in _NULL_TEXTS
    if found is None:
        return False
    if isinstance(expected, int | float | Decimal):
        return _same_number(found.strip(), expected)
    return found.strip() == str(expected).strip()


def _same_number(found: str, expected: int | float | Decimal) -> bool:
    if isinstance(expected, float) and not math.isfinite(expected):
        return found.lower() == str(expected)
    text = found.removesuffix("%").rstrip()
    written = _NUMBER.fullmatch(text)
    if written is None:
        return False
    value = Decimal(text.replace(",", ""))
    # Decimals compare exactly, whatever their exponents; a float is written shorter than it is.
    if value == Decimal(expected) or (isinstance(expected, float) and float(value) == expected):
        return True
    if Decimal(expected) == int(expected):
        return False
    error = abs(float(value) - float(expected))
    if error <= _SAME * abs(float(expected)):
        return True
    decimals = len(written["decimals"] or "")
    rounded = decimals >= _MIN_DECIMALS and not written["exponent"]
    # Half of the last decimal, plus the error of binary floats.
    unit = 0.5 * (1 + 1e-6) * 10.0**-decimals
    return rounded and error <= min(unit, _ROUNDED * abs(float(expected)))
