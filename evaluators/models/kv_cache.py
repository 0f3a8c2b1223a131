"""Key-value cache of a batch whose rows can be removed, with preallocated buffers.

A row's entries are in columns, and a mask states which columns belong to the row. As positions are
independent of columns, padding may be anywhere: on the left of what was cached, and between that
and the row's new tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from evaluators.models.prefix_cache import KeyValues

_ROOM = 64
"""Columns by which buffers grow: the library's own cache is copied whole at every token."""


class _Layer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer's keys and values at the start of larger buffers."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys: Any
        self.values: Any
        self._buffers: tuple[Any, Any] | None = None

    def hold(self, keys: Any, values: Any) -> None:
        """Start from these entries, (B, H, T, D), taking ownership."""
        self._buffers = keys, values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self.keys, self.values = keys, values

    def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self._buffers is None or end > self._buffers[0].shape[-2]:
            new = (key_states, value_states)
            old = (self.keys, self.values) if self.is_initialized else (None, None)
            grown = [_grown(*pair, start, end + _ROOM) for pair in zip(old, new, strict=True)]
            self.hold(grown[0], grown[1])
            assert self._buffers is not None
        keys, values = self._buffers
        keys[:, :, start:end] = key_states
        values[:, :, start:end] = value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values


def _grown(old: Any, new: Any, used: int, columns: int) -> Any:
    rows, heads, _, size = new.shape
    buffer = new.new_empty((rows, heads, columns, size))
    if used:
        buffer[:, :, :used] = old
    return buffer


class CacheBatch:
    """The cache of a batch from which rows can be removed.

    Attributes:
        cache: The cache passed to the model.
        mask: (B, T) long, 1 where a column belongs to the row.
    """

    def __init__(self, num_layers: int, mask: Any) -> None:
        self.cache = DynamicCache()
        self._layers = [_Layer() for _ in range(num_layers)]
        self.cache.layers = list(self._layers)
        self.cache.layer_class_to_replicate = None
        self.mask = mask

    @classmethod
    def of_pieces(
        cls, num_layers: int, rows: Sequence[Sequence[KeyValues]], device: Any
    ) -> CacheBatch:
        """Build rows that begin with cached pieces, possibly none."""
        lengths = [sum(piece[0][0].shape[1] for piece in pieces) for pieces in rows]
        width = max(lengths)
        columns = torch.arange(width)
        mask = (columns >= width - torch.tensor(lengths)[:, None]).long().to(device)
        batch = cls(num_layers, mask)
        sample = next((pieces[0] for pieces in rows if pieces), None)
        if sample is None:
            return batch
        for number, layer in enumerate(batch._layers):
            layer.hold(
                *(
                    _laid_out(
                        [[piece[number][side] for piece in pieces] for pieces in rows],
                        sample[number][side],
                        width,
                    )
                    for side in (0, 1)
                )
            )
        return batch

    @classmethod
    def joined(cls, batches: Sequence[CacheBatch]) -> CacheBatch:
        """Concatenate the rows of several batches, aligned on the right."""
        if len(batches) == 1:
            return batches[0]
        width = max(batch.mask.shape[1] for batch in batches)
        pads = [width - batch.mask.shape[1] for batch in batches]
        pad = torch.nn.functional.pad
        masks = [pad(batch.mask, (n, 0)) for batch, n in zip(batches, pads, strict=True)]
        whole = cls(len(batches[0]._layers), torch.cat(masks))
        for number, layer in enumerate(whole._layers):
            parts = [batch._layers[number] for batch in batches]
            layer.hold(
                *(
                    torch.cat([pad(part, (0, 0, n, 0)) for part, n in zip(side, pads, strict=True)])
                    for side in ([p.keys for p in parts], [p.values for p in parts])
                )
            )
        return whole

    def extend(self, mask: Any) -> None:
        """Set the mask of the columns that the next forward pass adds: (B, N)."""
        self.mask = torch.cat([self.mask, mask], dim=1)

    def select(self, rows: Sequence[int]) -> None:
        """Keep some rows, and remove unused columns on the left."""
        index = torch.tensor(rows, device=self.mask.device)
        mask = self.mask[index]
        first = int(mask.any(dim=0).long().argmax())
        self.mask = mask[:, first:]
        for layer in self._layers:
            place = index.to(layer.keys.device)
            layer.hold(layer.keys[place, :, first:], layer.values[place, :, first:])

    def entries(self, row: int, start: int) -> KeyValues:
        """Return a copy of a row's keys and values from its token `start` on."""
        columns = self.mask[row].nonzero()[start:, 0]
        found = []
        for layer in self._layers:
            place = columns.to(layer.keys.device)
            found.append((layer.keys[row][:, place], layer.values[row][:, place]))
        return found

    def is_filled(self) -> bool:
        """Whether the model wrote into every layer of the cache."""
        columns = self.mask.shape[1]
        return all(
            layer is own and own.get_seq_length() == columns
            for layer, own in zip(self.cache.layers, self._layers, strict=True)
        )


def _laid_out(rows: Sequence[Sequence[Any]], sample: Any, width: int) -> Any:
    heads, _, size = sample.shape
    # Zeros, not uninitialised memory: a masked value is still multiplied by 0.
    buffer = sample.new_zeros((len(rows), heads, width, size))
    for number, pieces in enumerate(rows):
        end = width
        for piece in reversed(pieces):
            buffer[number, :, end - piece.shape[1] : end] = piece
            end -= piece.shape[1]
    return buffer
