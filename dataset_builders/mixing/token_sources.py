"""Datasets that are tokenized already, converted to the columns of encoded text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from dataset_builders.encoding.arrow import features
from dataset_builders.encoding.lengths import LengthPolicy
from dataset_builders.encoding.row_index import index_of
from dataset_builders.encoding.token_rows import TokenReport
from dataset_builders.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

_SAMPLES = 3


@dataclass(frozen=True, slots=True)
class TokenSource:
    """Rows of a side that was given as tokens.

    Attributes:
        dataset: The rows; columns `input_ids`, `labels` and `attention_mask`, each (T,).
        index: Where each came from, see `row_index.INDEX`.
        report: Counts of the rows given.
    """

    dataset: Dataset
    index: pa.Table
    report: TokenReport


def token_source(
    source: Any, what: str, max_length: int, policy: LengthPolicy | None
) -> TokenSource:
    """Check tokenized rows and convert them to the types of encoded text.

    Args:
        source: A dataset with `input_ids` and `labels`; a missing `attention_mask` is ones.
        what: Name of its side in errors.
        max_length: Longest row in tokens.
        policy: Length policy for longer ones: "raise" or "truncate"; with any other they are
            dropped and counted, since tokenized rows have no turns to remove.

    Raises:
        DataError: The dataset is a streaming one, a row has another number of labels than
            of tokens or is too long, or none is left.
    """
    if not hasattr(source, "select"):
        raise DataError(
            f"{what}: found a streaming dataset of tokens, expected one with a length; make it a "
            "datasets.Dataset, or give the texts"
        )
    index = index_of(source)
    lengths = index["tokens"].to_numpy()
    too_long = lengths > max_length
    report = TokenReport(read=len(source))
    for length, number in zip(*np.unique(lengths, return_counts=True), strict=True):
        report.count_length(int(length), int(number))
    if too_long.any() and policy == "raise":
        number = int(np.flatnonzero(too_long)[0])
        raise DataError(
            f"{what}: row {number}: found {lengths[number]} tokens, expected at most {max_length}"
        )
    if policy == "truncate" and too_long.any():
        source, cut = _in_columns(source, max_length), too_long
        index = index_of(source)
        left_out, reason = cut & (index["trained_tokens"].to_numpy() == 0), "no_trained_token_left"
        report.truncated = int((cut & ~left_out).sum())
    else:
        source, left_out, reason = _in_columns(source), too_long, "too_long"
    _leave_out(report, what, left_out, reason, lengths)
    kept = np.flatnonzero(~left_out)
    if len(kept) < len(source):
        source, index = source.select(kept), index.take(kept)
    if not len(source):
        raise DataError(f"{what}: no row is left ({report.summary()}), max_length {max_length}")
    report.kept = report.rows = len(source)
    report.tokens = int(index["tokens"].to_numpy().sum())
    report.trained_tokens = int(index["trained_tokens"].to_numpy().sum())
    return TokenSource(source, index, report)


def _leave_out(report: TokenReport, what: str, left_out: Any, reason: str, lengths: Any) -> None:
    numbers = np.flatnonzero(left_out)
    if len(numbers):
        report.dropped[reason] = len(numbers)
        report.samples[reason] = [
            f"{what}/row {number}: found {lengths[number]} tokens" for number in numbers[:_SAMPLES]
        ]


def _in_columns(source: Dataset, max_length: int | None = None) -> Dataset:
    """Return the dataset with the columns and types of encoded text, truncated if requested."""
    wanted = features()
    if max_length is None and source.features == wanted:
        return source
    present = [name for name in wanted if name in source.column_names]
    convert = partial(_converted, max_length=max_length)
    rows = source.select_columns(present).with_format("arrow")
    return rows.map(convert, batched=True, features=wanted).with_format(None)


def _converted(batch: Any, max_length: int | None) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    schema = features().arrow_schema
    table = pa.table(batch)
    columns: dict[str, Any] = {}
    for name in ("input_ids", "labels", "attention_mask"):
        if name in table.column_names:
            values = table[name].combine_chunks()
        else:
            ids = table["input_ids"].combine_chunks()
            ones = pa.array(np.ones(len(pc.list_flatten(ids)), dtype=np.int8))
            values = pa.ListArray.from_arrays(_offsets(ids), ones)
        if max_length is not None:
            values = pc.list_slice(values, 0, max_length)
        columns[name] = values.cast(schema.field(name).type)
    return pa.table(columns, schema=schema)


def _offsets(lists: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    sizes = pc.list_value_length(lists).to_numpy()
    return pa.array(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))
