"""Row index of an encoded dataset: source and length of each row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dataset_builders.conversation import metadata_text
from dataset_builders.encoding.token_rows import IGNORE_INDEX
from dataset_builders.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

TEXTS = ("id", "source", "task", "model", "where")
NUMBERS = ("tokens", "trained_tokens", "part", "entry")

INDEX: tuple[str, ...] = (*TEXTS, *NUMBERS)
"""Columns of an index, one row for each row of a data set: `id`, `source`, `task`, `model`
and `where` (file and record) as text; as int32 `tokens` and `trained_tokens` (-1 where rows
are not encoded), `part` (number of the row where a conversation gives several, else 0) and
`entry` (number of the source within its side, from 0)."""


def index_schema() -> Any:
    """Return the columns of an index, with their types."""
    import pyarrow as pa

    numbers: list[Any] = [(name, pa.int32()) for name in NUMBERS]
    return pa.schema([*((name, pa.string()) for name in TEXTS), *numbers])


def make_index(columns: dict[str, Any], length: int) -> pa.Table:
    """Build an index from the known columns; the others are "", -1 or 0."""
    import pyarrow as pa

    arrays: dict[str, Any] = {}
    for name in TEXTS:
        arrays[name] = pa.array(columns.get(name, [""] * length), pa.string())
    for name in NUMBERS:
        missing = -1 if name.endswith("tokens") else 0
        values = columns.get(name, np.full(length, missing, dtype=np.int32))
        arrays[name] = pa.array(np.asarray(values, dtype=np.int32))
    return pa.table(arrays, schema=index_schema())


def is_encoded(index: pa.Table) -> bool:
    """Whether the row lengths are known."""
    return not len(index) or index["tokens"][0].as_py() >= 0


def index_of(rows: Dataset) -> pa.Table:
    """Build the index of a dataset that was made elsewhere, from the columns it has.

    Raises:
        DataError: Rows are encoded and one has another number of labels than of tokens.
    """
    columns: dict[str, Any] = {
        name: [metadata_text(value) for value in rows[name]]
        for name in ("id", "source", "task", "model")
        if name in rows.column_names
    }
    if "labels" in rows.column_names:
        columns["tokens"], columns["trained_tokens"] = _count(rows)
    return make_index(columns, len(rows))


def _count(rows: Dataset) -> tuple[Any, Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    tokens, trained = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    columns = rows.with_format("arrow").select_columns(["input_ids", "labels"])
    seen = 0
    for batch in columns.iter(batch_size=10_000):
        table = pa.table(batch)
        labels = table["labels"].combine_chunks()
        sizes = pc.list_value_length(labels).to_numpy().astype(np.int64)
        ids = pc.list_value_length(table["input_ids"].combine_chunks()).to_numpy()
        if (ids != sizes).any():
            number = int(np.flatnonzero(ids != sizes)[0])
            raise DataError(
                f"row {seen + number}: labels: found {sizes[number]}, expected one for each of "
                f"{ids[number]} input_ids"
            )
        covered = pc.list_flatten(labels).to_numpy() != IGNORE_INDEX
        before = np.concatenate([[0], np.cumsum(covered)])
        tokens.append(sizes)
        trained.append(np.diff(before[np.concatenate([[0], np.cumsum(sizes)])]))
        seen += len(sizes)
    return np.concatenate(tokens), np.concatenate(trained)
