"""The order in which all evaluations take their items."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b


def fixed_order(items: Iterable[str]) -> tuple[str, ...]:
    """Items in an order of which every beginning is a fair sample of the whole.

    Data are often sorted, by kind or by difficulty. An item's place depends on its name
    alone: a run in training, `agenttuning evaluate` and an evaluation on a server take the
    same first ones, the first of a larger limit are those of a smaller one, and an item more
    or less in the data moves no other.
    """
    return tuple(sorted(items, key=lambda item: (_place(item), item)))


def _place(item: str) -> bytes:
    return blake2b(item.encode("utf-8", "replace"), digest_size=8).digest()
