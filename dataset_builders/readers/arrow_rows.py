"""Rows of Arrow tables without the null keys that Arrow adds, JSON columns decoded.

Arrow gives every object of a column all keys that any of them has. Where objects differ too
much, `datasets` stores them as JSON text in a column of the type `arrow.json`; recent
versions infer that for tool calls and schemas.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Read = Callable[[Any], Any]


def row_reader(schema: Any) -> Read:
    """Return a function that restores a row of Python values to the record its author wrote.

    Nulls are removed as in `without_nulls`, except those within JSON text, which are the author's.

    Args:
        schema: Arrow schema of the rows.
    """
    readers = {field.name: _reader(field.type) for field in schema}

    def read(row: Any) -> Any:
        return {
            name: readers.get(name, without_nulls)(value)
            for name, value in row.items()
            if value is not None
        }

    return read


def _reader(kind: Any) -> Read:
    import pyarrow as pa

    if getattr(kind, "extension_name", "") == "arrow.json":
        return parsed_json
    if pa.types.is_struct(kind):
        fields = [kind.field(number) for number in range(kind.num_fields)]
        readers = {field.name: _reader(field.type) for field in fields}
        return lambda value: (
            {
                name: readers[name](item) if name in readers else without_nulls(item)
                for name, item in value.items()
                if item is not None
            }
            if isinstance(value, dict)
            else without_nulls(value)
        )
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        read = _reader(kind.value_type)
        return lambda value: (
            [read(item) for item in value] if isinstance(value, list) else without_nulls(value)
        )
    return without_nulls


def parsed_json(value: Any) -> Any:
    """Decode a JSON column's value: text in a file, already decoded in a `datasets.Dataset`."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def without_nulls(value: Any) -> Any:
    """Remove keys whose value is null, at any depth.

    Arrow gives every object in a column all the keys that any of them has, and null where
    an object has none: a tool call's arguments would gain those of every other tool. Nulls that the
    author wrote can no longer be distinguished from these.
    """
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value
