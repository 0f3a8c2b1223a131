"""General conversations kept out of training, to measure the loss on."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from dataset_builders.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


def split_holdout(rows: Dataset, size: int) -> tuple[list[int], list[int]]:
    """Hold rows out of a dataset.

    Rows are chosen by the hash of their tokens, so the choice survives reordering and
    most edits of the file, and duplicates of a row that is held out leave training too.

    Args:
        rows: Encoded rows.
        size: Number of different rows to hold out; 0 for none.

    Returns:
        Numbers of the rows that remain and of those held out.

    Raises:
        DataError: Fewer than `size` + 1 different rows are there.
    """
    if size == 0:
        return list(range(len(rows))), []
    digests: dict[bytes, list[int]] = {}
    column = rows.with_format("numpy")
    for index, row in enumerate(column.iter(batch_size=1)):
        ids = np.ascontiguousarray(row["input_ids"][0], dtype=np.int32)
        digests.setdefault(hashlib.blake2b(ids.tobytes(), digest_size=16).digest(), []).append(
            index
        )
    if len(digests) <= size:
        raise DataError(
            f"general: holdout asks for {size} conversations, found {len(digests)} different "
            "ones, and one at least has to remain for training"
        )
    chosen = sorted(digests)[:size]
    held = [digests[digest][0] for digest in chosen]
    out = {index for digest in chosen for index in digests[digest]}
    return [i for i in range(len(rows)) if i not in out], held
