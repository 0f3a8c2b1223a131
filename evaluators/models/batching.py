"""Batch rows of similar length within a token budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Apart = Callable[[Sequence[int], int], list[list[int]]]
"""`CacheSupport.apart` of the model."""

_MAX_BATCH_TOKENS = 2048
"""Padded tokens of a forward pass: bounds the logits' memory (tokens times vocabulary)."""

_MAX_CACHED_TOKENS = 65536
"""Token budget of a generation batch, prompts and answers together."""


def reading_batches(lengths: Sequence[int], apart: Apart) -> list[list[int]]:
    """Return batches of row numbers for scoring, each read in one pass."""
    return [
        [part[place] for place in batch]
        for part in apart(lengths, 0)
        for batch in _batches([lengths[row] for row in part], _MAX_BATCH_TOKENS)
    ]


def writing_batches(
    lengths: Sequence[int], room: int, max_rows: int, apart: Apart
) -> list[list[int]]:
    """Return batches of prompt numbers for generation.

    Args:
        lengths: Tokens of each prompt.
        room: Maximum tokens of an answer.
        max_rows: Maximum prompts per batch.
        apart: Groups that may share a batch.
    """
    return [
        [part[place] for place in batch]
        for part in apart(lengths, room)
        for batch in _batches([lengths[row] + room for row in part], _MAX_CACHED_TOKENS, max_rows)
    ]


def _batches(
    lengths: Sequence[int], max_tokens: int, max_rows: int | None = None
) -> list[list[int]]:
    """Batch row numbers by similar length."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda number: lengths[number]):
        rows = len(batches[-1]) + 1 if batches else 0
        # Shortest first, so the newcomer sets the padded width.
        if rows and rows * lengths[row] <= max_tokens and rows <= (max_rows or rows):
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
