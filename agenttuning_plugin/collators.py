"""The collator of packed rows, the same for Axolotl and TRL.

No attention mask leaves it. transformers tells documents apart by positions that start
again at 0, but only if there is no mask and no cache: with a mask of ones it would let each
document see the ones before it, in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dataset_builders.encoding.tokens import IGNORE_INDEX

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PackedCollator:
    """Makes a batch of packed rows, as `agenttuning_plugin.packing.packed_dataset` has them.

    Attributes:
        tokenizer: Gives the token that fills a row up.
        flatten: Whether to join the rows of a micro-batch into one. FlashAttention's kernels
            for documents of various lengths need it, and nothing is filled up then; with
            sdpa and eager, whose mask is as wide as it is long, rows are better left apart.
        pad_to_multiple_of: Length of the batch is a multiple of it, in tokens.
        padding: Not used; Axolotl passes it to every collator.
        return_tensors: Not used, likewise.
    """

    tokenizer: Any
    flatten: bool = False
    pad_to_multiple_of: int | None = None
    padding: Any = True
    return_tensors: str = "pt"

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Batch packed rows.

        Args:
            features: Rows with `input_ids` and `labels`, each (T,), and `seq_lengths`.

        Returns:
            `input_ids`, `labels` and `position_ids`, each (B, T) int64, where B is 1 if
            rows are joined. What fills a row up is a document of its own without labels.
        """
        import torch

        rows = [
            (row["input_ids"], row["labels"], _positions(row["seq_lengths"])) for row in features
        ]
        if self.flatten:
            rows = [tuple(np.concatenate(column) for column in zip(*rows, strict=True))]
        width = max(len(ids) for ids, *_ in rows)
        step = self.pad_to_multiple_of or 1
        width = -(-width // step) * step
        fill = self.tokenizer.pad_token_id
        if fill is None:
            fill = self.tokenizer.eos_token_id
        ids = np.full((len(rows), width), fill, dtype=np.int64)
        labels = np.full((len(rows), width), IGNORE_INDEX, dtype=np.int64)
        positions = np.zeros((len(rows), width), dtype=np.int64)
        for number, (row_ids, row_labels, row_positions) in enumerate(rows):
            length = len(row_ids)
            ids[number, :length] = row_ids
            labels[number, :length] = row_labels
            positions[number, :length] = row_positions
            positions[number, length:] = np.arange(width - length)
        columns = {"input_ids": ids, "labels": labels, "position_ids": positions}
        return {name: torch.from_numpy(column) for name, column in columns.items()}


def _positions(lengths: Sequence[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Positions of a row's tokens, from 0 in each document; (T,) int64."""
    sizes = np.asarray(lengths, dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    return np.arange(sizes.sum()) - np.repeat(starts, sizes)
