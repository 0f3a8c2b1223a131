"""Compares token ids and labels with a peer's, row by row; used by tokenize_mask.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dataset_builders.encoding.token_rows import IGNORE_INDEX


def agreement(rows: Any, peer: Any, tokenizer: Any, spelt: set[int], blanks: bool) -> str:
    """Compare ids and labels with a peer's, row by row.

    Args:
        rows: Our dataset.
        peer: The peer's.
        tokenizer: The tokenizer.
        spelt: Rows whose own words spell a control token: peers encode it as the token.
        blanks: Whether the one difference is expected that Llama-2's layout has: the
            blanks around a turn, which generation has to produce, are trained here.
    """
    blank, eos, bracket = tokenizer.convert_tokens_to_ids(["▁", "</s>", "]"])
    equal = explained = 0
    for number, (mine, theirs) in enumerate(zip(arrays(rows), arrays(peer), strict=True)):
        if number in spelt:
            continue
        if not np.array_equal(mine[0], theirs[0]):
            return f"DIFFERENT IDS in row {number}"
        (unequal,) = np.nonzero(mine[1] != theirs[1])
        equal += not len(unequal)
        for at in unequal.tolist():
            ids = mine[0].tolist()
            known = ids[at] == blank and (ids[at + 1] == eos or ids[at - 1] == bracket)
            if not (blanks and known and theirs[1][at] == IGNORE_INDEX):
                return f"DIFFERENT LABELS in row {number}"
        explained += bool(len(unequal))
    words = f"ids identical in {equal + explained} of {len(rows)} rows, labels in {equal}"
    if explained:
        words += f", but for the blanks around a turn in {explained}"
    return words + (f"; {len(spelt)} spell a control token" if spelt else "")


def arrays(rows: Any) -> Iterator[tuple[Any, Any]]:
    """Ids and labels of each row."""
    for row in rows.select_columns(["input_ids", "labels"]).with_format("numpy"):
        yield row["input_ids"], row["labels"]
