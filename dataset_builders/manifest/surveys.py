"""One pass over encoded rows: content hash, and the token ranges that the loss covers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dataset_builders.encoding.token_rows import IGNORE_INDEX

if TYPE_CHECKING:
    from datasets import Dataset

_BATCH = 10_000


@dataclass(frozen=True, slots=True)
class Survey:
    """Content hash and trained token ranges of a dataset's rows.

    Attributes:
        sha256: Hash of ids and labels, or of the messages of rows that are not encoded, in
            hexadecimal. Equal rows in equal order have equal hashes, however they are stored.
        spans: Arrow array of one list<int32> for each row, the ranges of tokens that the
            loss covers: [start, end, start, end, ...], ends exclusive. Turns that touch are
            one range.
            Empty where rows are not encoded.
    """

    sha256: str
    spans: Any


def survey_rows(rows: Dataset) -> Survey:
    """Survey all rows, one batch at a time."""
    encoded = {"input_ids", "labels"} <= set(rows.column_names)
    return _survey_tokens(rows) if encoded else _survey_text(rows)


def trained_ranges(labels: Any) -> Any:
    """Return the ranges of tokens that the loss covers.

    Args:
        labels: Arrow array of (N,) lists of labels, -100 where the loss does not cover the token.

    Returns:
        (N,) list<int32>, flattened ranges as in `Survey.spans`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    sizes = pc.list_value_length(labels).to_numpy(zero_copy_only=False).astype(np.int64)
    covered = pc.list_flatten(labels).to_numpy(zero_copy_only=False) != IGNORE_INDEX
    borders = np.concatenate([[0], np.cumsum(sizes)])
    first = np.zeros(len(covered), dtype=bool)
    first[borders[:-1][sizes > 0]] = True
    # A row's first token has no predecessor, its last no successor.
    before = np.concatenate([[False], covered[:-1]]) & ~first
    after = np.concatenate([covered[1:], [False]]) & ~np.concatenate([first[1:], [False]])
    starts, ends = np.flatnonzero(covered & ~before), np.flatnonzero(covered & ~after)
    row = np.searchsorted(borders, starts, side="right") - 1
    ranges = np.stack([starts - borders[row], ends + 1 - borders[row]], axis=1)
    counts = np.bincount(row, minlength=len(sizes))[: len(sizes)]
    offsets = np.concatenate([[0], 2 * np.cumsum(counts)]).astype(np.int32)
    lists: Any = pa.ListArray
    return lists.from_arrays(pa.array(offsets), pa.array(ranges.ravel().astype(np.int32)))


def _survey_tokens(rows: Dataset) -> Survey:
    import pyarrow as pa
    import pyarrow.compute as pc

    parts = {name: hashlib.sha256() for name in ("sizes", "input_ids", "labels")}
    spans: list[Any] = []
    columns = rows.with_format("arrow").select_columns(["input_ids", "labels"])
    for batch in columns.iter(batch_size=_BATCH):
        lists = {name: pa.table(batch)[name].combine_chunks() for name in ("input_ids", "labels")}
        sizes = pc.list_value_length(lists["labels"]).to_numpy(zero_copy_only=False)
        parts["sizes"].update(sizes.astype("<i8").tobytes())
        for name, values in lists.items():
            flat = pc.list_flatten(values).to_numpy(zero_copy_only=False)
            parts[name].update(flat.astype("<i4").tobytes())
        spans.append(trained_ranges(lists["labels"]))
    whole = hashlib.sha256(b"".join(part.digest() for part in parts.values()))
    return Survey(whole.hexdigest(), pa.concat_arrays(spans) if spans else _no_spans(0))


def _survey_text(rows: Dataset) -> Survey:
    digest = hashlib.sha256()
    for row in rows.select_columns(sorted(rows.column_names)):
        line = json.dumps(row, sort_keys=True, default=str)  # ASCII: lone surrogates are escaped
        digest.update(line.encode() + b"\n")
    return Survey(digest.hexdigest(), _no_spans(len(rows)))


def _no_spans(length: int) -> Any:
    import pyarrow as pa

    return pa.array([[]] * length, type=pa.list_(pa.int32()))
