"""Distribute packed rows over global batches so that each gets its share of agent data.

Best fit puts examples of similar length together, so agent data gather in few bins: in an order
that ignores them, one batch would have many and the next hardly any. Only integer arithmetic and
single divisions are used, which all processors round identically: every rank and every resumed run
must compute the same order.
"""

from __future__ import annotations

from copy import copy
from itertools import chain

import numpy as np
import numpy.typing as npt

Index = npt.NDArray[np.int64]

_UNIT = 256
"""Fixed-point unit of an example, a token and the mean excess."""

_LIMIT = 128 * _UNIT
"""Clipping bound of an excess, so that no product overflows 64 bits."""


class BatchBalancer:
    """Orders the bins of successive windows so that batches are balanced.

    A bin has an excess: the agent examples in it beyond the window's share of its examples,
    and likewise for trained tokens. Over a window the excesses sum to zero, and the dealer
    makes them sum to almost zero over every batch. A window need not end with a batch; the
    excess of one that is begun is kept, and the next window completes it.

    Args:
        agent: (N,) bool, true for agent data.
        trained: (N,) int, tokens of each example that the loss covers, or none to even
            out examples alone.
        batch: Bins in a global batch.
    """

    def __init__(self, agent: npt.NDArray[np.bool_], trained: Index | None, batch: int) -> None:
        columns = [np.ones(len(agent), dtype=np.int64)]
        if trained is not None:
            columns.append(np.asarray(trained, dtype=np.int64))
        weights = np.stack(columns)
        # Rows: what is counted (examples, trained tokens); then the same of agent data.
        self._counts = np.concatenate([weights, weights * agent])
        self._batch = batch
        self._begun = 0  # bins in the batch that the last window left incomplete
        self._excess = np.zeros(len(columns), dtype=np.int64)  # their excess

    def copy(self) -> BatchBalancer:
        """Return a copy that continues from the same state."""
        found = copy(self)
        found._excess = self._excess.copy()
        return found

    def defer(self, bins: list[list[int]], waits: list[bool]) -> list[bool]:
        """Let some full bins wait too, so that those that leave have their share of agent data.

        Bins that are not full hold the shortest examples, so agent data above all: without
        them the window's batches would have less than their part, and the next one's more.

        Args:
            bins: Bins begun in this window.
            waits: Whether each waits for the next window.

        Returns:
            The updated `waits`.
        """
        if not bins:
            return waits
        excess = self._excesses(bins)
        excess = _scaled(excess, _scale(excess))
        waiting = np.array(waits, dtype=bool)
        total = excess[waiting].sum(axis=0)
        while not waiting.all():
            left = ((total + excess) ** 2).sum(axis=1)
            left[waiting] = np.iinfo(np.int64).max
            best = int(left.argmin())
            if left[best] >= (total**2).sum():
                break
            waiting[best] = True
            total += excess[best]
        return [bool(value) for value in waiting]

    def deal(self, bins: list[list[int]]) -> list[list[int]]:
        """Order the bins that leave with a window: batch after batch, each in the given order."""
        if not bins:
            return []
        excess = self._excesses(bins)
        scale = _scale(excess)
        places = self._places(len(bins))
        group = _assign(_scaled(excess, scale), places, _scaled(self._excess, scale))
        group = _in_turn(group, _scaled(excess, scale), places == self._batch)
        last = excess[group == len(places) - 1].sum(axis=0)
        if len(places) == 1:
            last += self._excess
        self._begun = (self._begun + len(bins)) % self._batch
        self._excess = last if self._begun else np.zeros_like(last)
        return [bins[number] for number in np.argsort(group, kind="stable").tolist()]

    def _excesses(self, bins: list[list[int]]) -> Index:
        """Return (B, C) int64, the agent data in each bin beyond its share, in `_UNIT`ths."""
        sizes = np.fromiter(map(len, bins), dtype=np.int64, count=len(bins))
        flat = chain.from_iterable(bins)
        members = np.fromiter(flat, dtype=np.int64, count=int(sizes.sum()))
        starts = np.cumsum(sizes) - sizes
        whole, agent = np.split(np.add.reduceat(self._counts[:, members], starts, axis=1), 2)
        all_whole = np.maximum(whole.sum(axis=1, keepdims=True), 1)
        due = whole * agent.sum(axis=1, keepdims=True)
        return np.asarray(((agent * all_whole - due) * _UNIT // all_whole).T)

    def _places(self, count: int) -> Index:
        """Return the free places of each batch that the bins go to, the incomplete batch first."""
        batches = -(-(self._begun + count) // self._batch)
        places = np.full(batches, self._batch, dtype=np.int64)
        places[0] -= self._begun
        places[-1] -= places.sum() - count
        return places


def _scale(excess: Index) -> Index:
    """Return (C,) int64, the mean size of what is counted, at least 1."""
    mean: Index = np.abs(excess).sum(axis=0) // len(excess)
    return np.maximum(mean, 1, out=mean)


def _scaled(excess: Index, scale: Index) -> Index:
    """Return the excess relative to its mean size, so that examples and tokens weigh the same."""
    return np.asarray(np.clip(excess * _UNIT // scale, -_LIMIT, _LIMIT))


def _assign(excess: Index, places: Index, begun: Index) -> Index:
    """Assign a batch to each bin, largest excess first.

    At every moment a batch is due the part of all excess dealt so far that its places are of
    all places. A bin goes where the sum of squared differences from that, each divided by the
    places of its batch, grows least: the greedy rule of number partitioning, in as many
    dimensions as things are counted, for batches that have few or many places.

    Args:
        excess: (B, C) excess of each bin, scaled.
        places: (G,) free places of each batch, B in all.
        begun: (C,) excess that the first batch has already.

    Returns:
        (B,) int64, the batch of each bin.
    """
    count = len(excess)
    free = places.copy()
    above = np.zeros((len(places), excess.shape[1]), dtype=np.int64)  # what is due, times B
    above[0] = begun * count
    group = np.empty(count, dtype=np.int64)
    norms = (excess**2).sum(axis=1)
    order = np.argsort(-norms, kind="stable")
    for left, number in zip(range(count - 1, -1, -1), order.tolist(), strict=True):
        new = excess[number]
        growth = (2 * (above @ new) + count * norms[number]) / places
        # Batches fill up in parallel: the small excesses at the end even out the remainder.
        growth[(free == 0) | ((free + 1) * count <= places * left)] = np.inf
        best = int(growth.argmin())
        group[number] = best
        free[best] -= 1
        above -= places[:, None] * new
        above[best] += new * count
    return group


def _in_turn(group: Index, excess: Index, whole: npt.NDArray[np.bool_]) -> Index:
    """Renumber the batches so that their remaining excess alternates.

    Batches of few bins cannot all be even, and a window's first ones would get the bins with
    the most agent data: a run that ends within the window would have seen too much of it.

    Args:
        group: (B,) the batch of each bin.
        excess: (B, C) excess of each bin, scaled.
        whole: (G,) bool, the batches that may change places: all their bins are of this window.
    """
    sums = np.zeros((len(whole), excess.shape[1]), dtype=np.int64)
    np.add.at(sums, group, excess)
    free = np.flatnonzero(whole)
    left = whole.copy()
    total = sums[0] * (not whole[0])
    place = np.arange(len(whole))
    for number in free.tolist():
        growth = ((total + sums) ** 2).sum(axis=1)
        growth[~left] = np.iinfo(np.int64).max
        best = int(growth.argmin())
        place[best] = number
        left[best] = False
        total = total + sums[best]
    return place[group]
