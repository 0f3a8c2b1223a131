"""Prefix cache: keys and values of earlier rows, looked up by their tokens.

A radix tree whose edges are pieces of rows: common prefixes, such as the opening of all episodes of
a task or the earlier rounds of one, are stored once.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

KeyValues = list[tuple[Any, Any]]
"""Keys and values of a piece of a row, per layer: (H, T, D) tensors."""

_live: weakref.WeakSet[PrefixCache] = weakref.WeakSet()
_loans = 0


@dataclass(eq=False, slots=True)
class _Node:
    tokens: tuple[int, ...] = ()
    values: KeyValues = field(default_factory=list)
    parent: _Node | None = None
    children: dict[int, _Node] = field(default_factory=dict)
    used: int = 0


class PrefixCache:
    """A bounded store of keys and values with least-recently-used eviction.

    Args:
        max_tokens: Capacity in tokens.
    """

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.num_tokens = 0
        self._root = _Node()
        self._clock = count(1)
        _live.add(self)

    def find(self, tokens: Sequence[int]) -> tuple[int, list[KeyValues]]:
        """Return the longest stored prefix of a row.

        Returns:
            Its length, and the pieces that make it up.
        """
        node, place, pieces = self._root, 0, list[KeyValues]()
        while place < len(tokens) and (child := node.children.get(tokens[place])) is not None:
            child.used = next(self._clock)
            same = _common(child.tokens, tokens, place)
            place += same
            if same < len(child.tokens):
                pieces.append(_cut(child.values, 0, same))
                break
            pieces.append(child.values)
            node = child
        return place, pieces

    def add(self, tokens: Sequence[int], start: int, values: KeyValues) -> None:
        """Store a row.

        Args:
            tokens: The whole row.
            start: Length of the prefix that `find` returned; if some have been
                dropped since, the rest cannot be held.
            values: Of the tokens from `start` on; theirs from now on.
        """
        node, place = self._root, 0
        while place < len(tokens) and (child := node.children.get(tokens[place])) is not None:
            child.used = next(self._clock)
            same = _common(child.tokens, tokens, place)
            place += same
            if same < len(child.tokens):
                if place < len(tokens):
                    node = self._split(child, same)
                break
            node = child
        if not start <= place < len(tokens):
            return
        length = len(tokens) - place
        piece = _cut(values, place - start, length + place - start, copy=place > start)
        leaf = _Node(tuple(tokens[place:]), piece, node, used=next(self._clock))
        node.children[leaf.tokens[0]] = leaf
        self.num_tokens += length
        self._shrink()

    def clear(self) -> None:
        """Remove everything."""
        self._root = _Node()
        self.num_tokens = 0

    def _split(self, node: _Node, place: int) -> _Node:
        """Insert a node before another, with the start of its piece."""
        parent = node.parent
        assert parent is not None
        front = _Node(node.tokens[:place], _cut(node.values, 0, place, copy=True), parent)
        front.used = node.used
        parent.children[front.tokens[0]] = front
        # Copied, for a view would hold the memory of the whole after the other is dropped.
        node.values = _cut(node.values, place, len(node.tokens), copy=True)
        node.tokens, node.parent = node.tokens[place:], front
        front.children[node.tokens[0]] = node
        return front

    def _shrink(self) -> None:
        while self.num_tokens > self.max_tokens:
            # A row was used when the last of its pieces was: parents are never older.
            oldest = min(self._leaves(), key=lambda node: node.used)
            assert oldest.parent is not None
            del oldest.parent.children[oldest.tokens[0]]
            self.num_tokens -= len(oldest.tokens)

    def _leaves(self) -> list[_Node]:
        found, waiting = [], list(self._root.children.values())
        while waiting:
            node = waiting.pop()
            waiting.extend(node.children.values())
            if not node.children:
                found.append(node)
        return found


@contextmanager
def weights_frozen() -> Iterator[None]:
    """Declare that weights do not change within the context; prefix caches are cleared after it."""
    global _loans
    _loans += 1
    try:
        yield
    finally:
        _loans -= 1
        for cache in list(_live):
            cache.clear()


def are_weights_frozen() -> bool:
    """Whether this runs within `weights_frozen`, so that cached values stay valid."""
    return _loans > 0


def _common(piece: Sequence[int], tokens: Sequence[int], place: int) -> int:
    length = min(len(piece), len(tokens) - place)
    if tuple(tokens[place : place + length]) == tuple(piece[:length]):
        return length
    return next(i for i in range(length) if piece[i] != tokens[place + i])


def _cut(values: KeyValues, start: int, end: int, *, copy: bool = False) -> KeyValues:
    cut = [(keys[:, start:end], states[:, start:end]) for keys, states in values]
    return [(keys.clone(), states.clone()) for keys, states in cut] if copy else cut
