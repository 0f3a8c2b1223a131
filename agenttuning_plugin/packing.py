"""Packed rows as a dataset that both trainers take: a view, no token is copied before use.

The dataset holds the numbers of each bin's rows, some 30 bytes a bin, and fetches
tokens from the sources when a batch is asked for. Both trainers leave such a dataset as it is
if they are told to keep columns that they do not know (`remove_unused_columns: false`) and,
in TRL, to skip their own preparation (`skip_prepare_dataset`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dataset_builders.errors import ConfigError
from dataset_builders.packing import Bins
from dataset_builders.tokens import IGNORE_INDEX

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS = ("input_ids", "labels")
"""What a source has to have; other columns of it are not read."""

_ROWS = "rows"


def packed_dataset(sources: Sequence[Dataset], order: npt.NDArray[np.int64], bins: Bins) -> Dataset:
    """Show the bins of a mix as rows.

    Args:
        sources: Encoded rows, one source after the other as the order counts them.
        order: (N,) int64, the row at each position of the mix.
        bins: Packing of these positions.

    Returns:
        One row per bin, in order: `input_ids` and `labels`, each (T,) int64, the
        conversations one after the other, and `seq_lengths`, the length of each. A
        conversation's first label is -100: what comes before it does not predict it.

    Raises:
        ConfigError: A source has no tokens, or the bins are of another mix.
    """
    from datasets import Dataset, Features, List, Value, concatenate_datasets

    for source in sources:
        if missing := set(COLUMNS) - set(source.column_names):
            raise ConfigError(
                f"packing: columns: found no {', '.join(sorted(missing))} in a source"
            )
    if len(bins.positions) and int(bins.positions.max()) >= len(order):
        raise ConfigError(
            f"packing: found position {bins.positions.max()} in a mix of {len(order)} examples"
        )
    rows = concatenate_datasets([source.select_columns(list(COLUMNS)) for source in sources])
    flat = order[bins.positions]
    members = np.split(flat, bins.offsets[1:-1]) if len(bins) else []
    features = Features({_ROWS: List(Value("int64"))})
    view = Dataset.from_dict({_ROWS: members}, features=features)
    return view.with_transform(Gather(rows))


class Gather:
    """Fetches the tokens of bins.

    Args:
        rows: All rows that bins may name, with the columns `COLUMNS`.
    """

    def __init__(self, rows: Dataset) -> None:
        self._rows = rows.with_format("arrow")

    def __call__(self, batch: dict[str, list[list[int]]]) -> dict[str, list[Any]]:
        """Tokens, labels and lengths of each bin in the batch."""
        bins = batch[_ROWS]
        table = self._rows[[row for members in bins for row in members]]
        ids, borders = _flatten(table["input_ids"])
        labels, _ = _flatten(table["labels"])
        labels[borders[:-1]] = IGNORE_INDEX
        ends = np.concatenate([[0], np.cumsum([len(members) for members in bins])])
        result: dict[str, list[Any]] = {"input_ids": [], "labels": [], "seq_lengths": []}
        for first, last in pairwise(ends.tolist()):
            span = slice(borders[first], borders[last])
            result["input_ids"].append(ids[span])
            result["labels"].append(labels[span])
            result["seq_lengths"].append(np.diff(borders[first : last + 1]).tolist())
        return result


def _flatten(column: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Values of a list column, (T,), and the borders between its rows, (R + 1,)."""
    lists = column.combine_chunks()
    values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    sizes = lists.value_lengths().to_numpy(zero_copy_only=False)
    return values, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
