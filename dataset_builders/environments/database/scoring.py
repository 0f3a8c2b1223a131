"""AgentBench's DB metric: compare an answer with its label, and a table's state.

It scores AgentBench's own tasks only; `answers` has the strict rule for all others. Written
from the rule, not from the code (AgentBench, task dbbench, result processor).
"""

from __future__ import annotations

import ast
import hashlib
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

GROUP_CONCAT_CHARS = 1024
"""Characters of the joined row hashes that AgentBench's MySQL compares."""

_MAX_ANSWER_CHARS = 2000


def table_hash(rows: Iterable[Sequence[object]], cut: int | None = None) -> str:
    """Hash a table's content regardless of row order, as AgentBench does.

    A row's hash is the first 5 hexadecimal digits of the MD5 of its values joined by
    commas, without NULLs (MySQL's CONCAT_WS); the table's is the MD5 of the sorted row
    hashes joined by commas.

    Args:
        rows: Rows in the order of the table's columns.
        cut: Characters of the joined row hashes that count: AgentBench's MySQL cuts at
            `GROUP_CONCAT_CHARS`, so it ignores the rows after the 170th hash.

    Returns:
        32 hexadecimal digits.
    """
    return _md5(",".join(sorted(_md5(_joined(row))[:5] for row in rows))[:cut])


def exact_hash(rows: Iterable[Sequence[object]]) -> str:
    """Hash a table's content exactly, regardless of row order.

    In contrast, `table_hash` ignores NULLs, joins values by a character that may occur in them, and
    keeps 20 bits of a row.
    """
    text = "\n".join(sorted(repr(tuple(row)) for row in rows))
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _joined(row: Sequence[object]) -> str:
    texts = (
        value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        for value in row
        if value is not None
    )
    return ",".join(texts)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()


def agentbench_match(answer: str, label: Sequence[str]) -> bool:
    """Whether an answer equals its label by AgentBench.old's rule.

    The answer is a Python list; one value is compared as a number, exactly, or else as
    text; several are compared as a set, where the number 12 is not the text "12". Anything that is
    not a list is one text, leading blank included. One difference: AgentBench evaluates the model's
    text as a Python expression, here only literals are read.

    Args:
        answer: What follows `Final Answer:`, unchanged.
        label: Values as given in the data.
    """
    found = _python_list(answer)
    if len(found) != 1 or len(label) != 1:
        try:
            return set(found) == set(label)
        except TypeError:  # A list or dictionary within the list.
            return False
    try:
        return bool(float(found[0]) == float(label[0]))
    except (TypeError, ValueError, OverflowError):
        return bool(found[0] == label[0])


def _python_list(text: str) -> list[Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(ast.literal_eval(text[:_MAX_ANSWER_CHARS].strip()))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return [text]
