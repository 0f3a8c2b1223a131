"""Normalise the layouts in which Parquet files and JSON text store lists of turns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def turn_list(value: Any) -> Any:
    """Return a list of turns if the layout is unambiguous; return other values unchanged.

    Understood are JSON text of a list, a list of JSON texts of objects, and an object of
    lists of one length, as Parquet files that `datasets` wrote from its older `Sequence`
    hold it: `{"from": ["human", "gpt"], "value": ["q", "a"]}`.
    """
    if isinstance(value, str):
        parsed = _parsed(value)
        return parsed if isinstance(parsed, list) else value
    if isinstance(value, Mapping):
        return _transposed(value)
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        items = [_parsed(item) for item in value]
        return items if all(isinstance(item, Mapping) for item in items) else value
    return value


def _parsed(text: str) -> Any:
    try:
        return json.loads(text) if text.lstrip()[:1] in ("[", "{") else None
    except (ValueError, RecursionError):
        return None


def _transposed(columns: Mapping[str, Any]) -> Any:
    lists = [column for column in columns.values() if isinstance(column, list)]
    if not lists or len(lists) < len(columns) or len(set(map(len, lists))) > 1:
        return columns
    return [
        {name: column[number] for name, column in columns.items() if column[number] is not None}
        for number in range(len(lists[0]))
    ]
