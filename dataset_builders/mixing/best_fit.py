"""Best fit decreasing over one window of a mix after the other, with bins that stay open."""

from __future__ import annotations

from bisect import bisect_left, insort
from itertools import compress
from operator import not_

import numpy as np
import numpy.typing as npt

from dataset_builders.mixing.balancing import BatchBalancer

FULL = 0.995
"""Share of its capacity from which on a bin does not wait for the next window."""

Index = npt.NDArray[np.int64]

_BITS = 32  # a bin's number, below the space that it has left


class Packer:
    """Packs windows; holds the bins that the last one left open.

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
        """A copy that continues from the same state."""
        dealer = self._dealer.copy() if self._dealer is not None else None
        found = Packer(self._lengths, self._capacity, self._rows, dealer)
        found._open = [list(members) for members in self._open]
        found._spaces = list(self._spaces)
        return found

    def fill(self, start: int, stop: int) -> None:
        """Put the examples of a window into bins, those still open among them."""
        self._old = len(self._open)
        best_fit(self._lengths, start, stop, self._capacity, self._open, self._spaces, self._rows)

    def __len__(self) -> int:
        """Bins that are open."""
        return len(self._open)

    def leave(self, *, last: bool) -> list[list[int]]:
        """The bins that leave after `fill`, in the order of training; all if it was the last.

        Those that were open before leave; of the others those that are full, as far as the
        dealer does not hold them back.
        """
        old, waits = self._old, [False] * len(self._open)
        if not last:
            enough = int(self._capacity * (1 - FULL))
            waits[old:] = [space > enough for space in self._spaces[old:]]
            if self._dealer is not None:
                waits[old:] = self._dealer.hold_back(self._open[old:], waits[old:])
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
    """Put a window's examples, the longest first, each into the bin it fills best.

    Bins are kept sorted by the space they have left, so the best one is found by bisection.
    Copies of a row are of one length and follow each other, so they would share a bin often.

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
