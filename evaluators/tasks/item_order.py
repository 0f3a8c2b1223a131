"""Fixed, shuffled order in which all evaluations take their items."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b


def fixed_order(items: Iterable[str]) -> tuple[str, ...]:
    """Return items in an order of which every prefix is a representative sample.

    Data are often sorted, by kind or by difficulty. An item's rank depends only on its name:
    evaluation during training, `agenttuning evaluate` and evaluation of a server take the same
    first items, a smaller limit selects a subset of a larger one, and adding or removing an item
    does not reorder the others.
    """
    return tuple(sorted(items, key=lambda item: (_place(item), item)))


def _place(item: str) -> bytes:
    return blake2b(item.encode("utf-8", "replace"), digest_size=8).digest()
