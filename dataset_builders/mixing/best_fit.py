"""Best fit decreasing, window by window, with bins that stay open."""

from __future__ import annotations

from bisect import bisect_left, insort
from itertools import compress
from operator import not_

import numpy as np
import numpy.typing as npt

from dataset_builders.mixing.balancing import BatchBalancer

FULL = 0.995
"""Fill from which a bin no longer waits for the next window."""

Index = npt.NDArray[np.int64]

_BITS = 32  # a bin's number, below the space that it has left


class Packer:
    """Packs windows; keeps the bins that the last one left open.

    Args:
        lengths: (N,) int64, tokens of each example.
        capacity: Tokens that a bin can hold.
        rows: (N,) int64, the row that each example is a copy of: no bin takes two copies of
            one. None: no two are copies.
        dealer: Orders the bins that leave; none: in the order of their first example.
    """

    def __init__(
        self, lengths: Index, capacity: int, rows: Index | None, dealer: BatchBalancer | None
    ) -> None:
        self._lengths = lengths
        self._capacity = capacity
        self._rows = rows
        self._dealer = dealer
        self._open: list[list[int]] = []
        self._spaces: list[int] = []

    def copy(self) -> Packer:
        """Return a copy that continues from the same state."""
        dealer = self._dealer.copy() if self._dealer is not None else None
        found = Packer(self._lengths, self._capacity, self._rows, dealer)
        found._open = [list(members) for members in self._open]
        found._spaces = list(self._spaces)
        return found

    def fill(self, start: int, stop: int) -> None:
        """Put the examples of a window into bins, open ones included."""
        self._old = len(self._open)
        best_fit(self._lengths, start, stop, self._capacity, self._open, self._spaces, self._rows)

    def __len__(self) -> int:
        """Return the number of open bins."""
        return len(self._open)

    def leave(self, *, last: bool) -> list[list[int]]:
        """Return the bins that leave after `fill`, in training order; all after the last window.

        Bins that were open before leave; of the others the full ones, unless the balancer defers
        them.
        """
        old, waits = self._old, [False] * len(self._open)
        if not last:
            enough = int(self._capacity * (1 - FULL))
            waits[old:] = [space > enough for space in self._spaces[old:]]
            if self._dealer is not None:
                waits[old:] = self._dealer.defer(self._open[old:], waits[old:])
        leaving = sorted(sorted(members) for members in compress(self._open, map(not_, waits)))
        self._open = list(compress(self._open, waits))
        self._spaces = list(compress(self._spaces, waits))
        return leaving if self._dealer is None else self._dealer.deal(leaving)


def best_fit(
    lengths: Index,
    start: int,
    stop: int,
    capacity: int,
    bins: list[list[int]],
    spaces: list[int],
    rows: Index | None = None,
) -> None:
    """Put a window's examples, longest first, each into the bin it fills best.

    Bins are kept sorted by the space they have left, so the best one is found by bisection.
    Copies of a row have equal length and follow each other, so they would often share a bin.

    Args:
        lengths: (N,) int64, tokens of each example.
        start: First example of the window.
        stop: Its end.
        capacity: Tokens that a new bin can hold.
        bins: Members of each bin, those still open at first; changed.
        spaces: Tokens that each has left; changed.
        rows: (N,) int64, the row of each example, or none; see `Packer`.
    """
    keys = sorted((space << _BITS) + number for number, space in enumerate(spaces))
    order = np.argsort(-lengths[start:stop], kind="stable") + start
    copies = order if rows is None else rows[order]
    held: list[set[int]] = [] if rows is None else [set(rows[members].tolist()) for members in bins]
    triples = zip(order.tolist(), lengths[order].tolist(), copies.tolist(), strict=True)
    for position, length, row in triples:
        place = bisect_left(keys, length << _BITS)
        if rows is not None:
            while place < len(keys) and row in held[keys[place] & ((1 << _BITS) - 1)]:
                place += 1
        if place < len(keys):
            key = keys.pop(place)
            number = key & ((1 << _BITS) - 1)
            bins[number].append(position)
        else:
            number = len(bins)
            key = (capacity << _BITS) + number
            bins.append([position])
            spaces.append(capacity)
            held.append(set())
        if rows is not None:
            held[number].add(row)
        spaces[number] -= length
        if spaces[number]:
            insort(keys, key - (length << _BITS))
