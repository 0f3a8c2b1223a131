"""Hold conversations out of training, to measure validation loss on."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from dataset_builders.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset


def split_holdout(
    rows: Dataset, index: pa.Table, size: int, what: str = "general: holdout"
) -> tuple[list[int], list[int]]:
    """Hold conversations out of a dataset.

    They are chosen by the hash of their tokens, so the choice survives reordering and most
    edits of the file. Duplicates of a row that is held out leave training too, and so do
    the other pieces of a conversation that was split.

    Args:
        rows: Encoded rows.
        index: Where each row came from, see `row_index.INDEX`.
        size: Number of different conversations to hold out; 0 for none.
        what: Name of the setting in errors.

    Returns:
        Numbers of the rows that remain and of those held out, one for each conversation.

    Raises:
        DataError: Fewer than `size` + 1 different conversations are there.
    """
    if size == 0:
        return list(range(len(rows))), []
    whose = _conversations(index)
    digests: dict[bytes, list[int]] = {}
    column = rows.with_format("numpy")
    for number, row in enumerate(column.iter(batch_size=1)):
        ids = np.ascontiguousarray(row["input_ids"][0], dtype=np.int32)
        digest = hashlib.blake2b(ids.tobytes(), digest_size=16).digest()
        digests.setdefault(digest, []).append(number)
    first = index["part"].to_numpy() <= 1  # of its conversation
    candidates = sorted(digest for digest, found in digests.items() if first[found[0]])
    if len(candidates) <= size:
        raise DataError(
            f"{what} asks for {size} conversations, found {len(candidates)} different "
            "ones, and one at least has to remain for training"
        )
    chosen = candidates[:size]
    out = {whose[number] for digest in chosen for number in digests[digest]}
    remaining = [number for number, key in enumerate(whose) if key not in out]
    return remaining, [digests[digest][0] for digest in chosen]


def split_task_holdout(rows: Dataset, index: pa.Table, size: int) -> tuple[list[int], list[int]]:
    """Hold conversations of each task out of an agent dataset, as `split_holdout` does.

    Args:
        rows: Encoded rows.
        index: Where each row came from, see `row_index.INDEX`.
        size: Number of different conversations of each task to hold out; 0 for none.

    Returns:
        See `split_holdout`; held-out rows in the order of the tasks' names.

    Raises:
        DataError: Fewer than `size` + 1 different conversations of a task are there.
    """
    if size == 0:
        return list(range(len(rows))), []
    members: dict[str, list[int]] = {}
    for number, task in enumerate(index["task"].to_pylist()):
        members.setdefault(task, []).append(number)
    kept: list[int] = []
    out: list[int] = []
    for task, numbers in sorted(members.items()):
        what = f"agent: agent_holdout of task {task!r}"
        remaining, held = split_holdout(rows.select(numbers), index.take(numbers), size, what)
        kept += [numbers[number] for number in remaining]
        out += [numbers[number] for number in held]
    return sorted(kept), out


def _conversations(index: pa.Table) -> list[object]:
    """Return a conversation key per row; the number of its first row where no record is known."""
    columns = (index[name].to_pylist() for name in ("entry", "where", "part"))
    keys: list[object] = []
    for number, (entry, place, part) in enumerate(zip(*columns, strict=True)):
        later = part > 1 and keys  # The rows of a conversation follow each other.
        keys.append((entry, place) if place else keys[-1] if later else number)
    return keys
