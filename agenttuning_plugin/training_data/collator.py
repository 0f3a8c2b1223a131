"""Collator of packed rows, for Axolotl and TRL.

No attention mask leaves it. transformers tells documents apart by positions that start
again at 0, but only if there is no mask and no cache: with a mask of ones it would let each
document silently see the ones before it. Layers that carry a state along the row are given
the documents' boundaries, under the names that TRL's own collator and transformers use.
"""

from __future__ import annotations

import inspect
import logging
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dataset_builders.encoding.tokens import IGNORE_INDEX

if TYPE_CHECKING:
    import torch

BOUNDARIES = (
    "cu_seq_lens_q",
    "cu_seq_lens_k",
    "max_length_q",
    "max_length_k",
    "seq_idx",
)
"""Arguments of a model's forward that tell where documents end."""

LOG = logging.getLogger("axolotl.agenttuning")

_checked = False


def mark_checked() -> None:
    """Record that a model was found to keep the documents of a packed row apart."""
    global _checked
    _checked = True


@dataclass(frozen=True)
class PackedCollator:
    """Collates packed rows (see `training_data.packed_dataset.packed_dataset`).

    Attributes:
        tokenizer: Gives the token that fills a row up.
        flatten: Whether to join the rows of a micro-batch into one. Kernels for documents of
            various lengths need it (FlashAttention, linear attention, Mamba), and nothing is
            filled up then; with sdpa and eager, whose mask is as wide as it is long, rows are
            better left apart.
        pad_to_multiple_of: Length of the batch is a multiple of it, in tokens.
        padding: Not used; Axolotl passes it to every collator.
        return_tensors: Not used, likewise.
        boundaries: Which of `BOUNDARIES` to give with rows that are joined.
    """

    tokenizer: Any
    flatten: bool = False
    pad_to_multiple_of: int | None = None
    padding: Any = True
    return_tensors: str = "pt"
    boundaries: tuple[str, ...] = ()

    @classmethod
    def for_model(cls, model: Any, tokenizer: Any = None) -> PackedCollator:
        """Create the collator that a model's attention and other layers need.

        Args:
            model: The model, before or after a trainer has taken it.
            tokenizer: Its tokenizer; none where no row is ever filled up.
        """
        names, flatten = boundaries_of(model), needs_joined_rows(model)
        return cls(tokenizer, flatten=flatten, boundaries=names if flatten else ())

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Collate packed rows.

        Args:
            features: Rows with `input_ids` and `labels`, each (T,), and `seq_lengths`, the
                length of each document; without it a row is one document.

        Returns:
            `input_ids`, `labels` and `position_ids`, each (B, T) int64, where B is 1 if
            rows are joined. What fills a row up is a document of its own without labels.
            With joined rows also the `boundaries`: `cu_seq_lens_q` and `cu_seq_lens_k`,
            (D + 1,) int32, where each of D documents begins and the last one ends;
            `max_length_q` and `max_length_k`, tokens of the longest; `seq_idx`, (1, T) int32,
            the number of each token's document.
        """
        import torch

        self._warn_unchecked()
        rows = [(row["input_ids"], row["labels"], _positions(_lengths(row))) for row in features]
        if self.flatten:
            rows = [tuple(np.concatenate(column) for column in zip(*rows, strict=True))]
        width = max(len(ids) for ids, *_ in rows)
        step = self.pad_to_multiple_of or 1
        width = -(-width // step) * step
        ids = np.full((len(rows), width), self._fill(), dtype=np.int64)
        labels = np.full((len(rows), width), IGNORE_INDEX, dtype=np.int64)
        positions = np.zeros((len(rows), width), dtype=np.int64)
        for number, (row_ids, row_labels, row_positions) in enumerate(rows):
            length = len(row_ids)
            ids[number, :length] = row_ids
            labels[number, :length] = row_labels
            positions[number, :length] = row_positions
            positions[number, length:] = np.arange(width - length)
        columns = {"input_ids": ids, "labels": labels, "position_ids": positions}
        batch: dict[str, torch.Tensor | int] = {
            name: torch.from_numpy(column) for name, column in columns.items()
        }
        if len(rows) == 1:
            found = _boundaries(positions[0])
            batch |= {name: found[name] for name in self.boundaries}
        return batch

    def _fill(self) -> int:
        if self.tokenizer is None:
            return 0
        fill = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if fill is None else fill)

    def _warn_unchecked(self) -> None:
        """Once, in the process that trains: workers do not see what was checked there."""
        if not _checked and self.tokenizer is not None and not multiprocessing.parent_process():
            mark_checked()
            LOG.warning(
                "packed rows: the model was not checked to keep their documents apart; add "
                "agenttuning_plugin.training_data.packing_check.PackingCheck() to the trainer's "
                "callbacks"
            )


def boundaries_of(model: Any) -> tuple[str, ...]:
    """Return which of `BOUNDARIES` a model's forward accepts."""
    from evaluators.models.compiled import original

    model = original(model)
    base = original(model.get_base_model() if hasattr(model, "get_base_model") else model)
    parameters = inspect.signature(base.forward).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return BOUNDARIES
    return tuple(name for name in BOUNDARIES if name in parameters)


def needs_joined_rows(model: Any) -> bool:
    """Whether a model's attention, or a layer that carries a state, reads boundaries."""
    attention = getattr(model.config, "_attn_implementation", None)
    return "flash" in str(attention) or carries_state(model.config)


def carries_state(config: Any) -> bool:
    """Whether a configuration has layers that carry a state along the row.

    By its layer types if it lists them, else by the settings of such layers.
    """
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None) or getattr(text, "layers_block_type", None) or ()
    if any("attention" not in kind or "linear" in kind for kind in kinds if kind != "moe"):
        return True
    marks = ("mamba", "ssm", "conv_kernel", "conv_l_cache", "state_size", "lru_width", "rwkv")
    names = [*text.to_dict(), str(text.model_type)]
    return any(name.lower().startswith((*marks, "xlstm")) for name in names)


def _boundaries(positions: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, torch.Tensor | int]:
    """Return the boundaries of one row's documents, from its positions, (T,)."""
    import torch

    starts = np.append(np.flatnonzero(positions == 0), len(positions))
    sizes = np.diff(starts)
    ends = torch.from_numpy(starts.astype(np.int32))
    numbers = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    longest = int(sizes.max())
    return {
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": longest,
        "max_length_k": longest,
        "seq_idx": torch.from_numpy(numbers)[None],
    }


def _lengths(row: dict[str, Any]) -> Sequence[int]:
    return row["seq_lengths"] if "seq_lengths" in row else [len(row["input_ids"])]


def _positions(lengths: Sequence[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return positions of a row's tokens, from 0 in each document; (T,) int64."""
    sizes = np.asarray(lengths, dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    return np.arange(sizes.sum()) - np.repeat(starts, sizes)
