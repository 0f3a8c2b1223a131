"""Packing: several conversations in a row of fixed length, the mix's order kept.

Best fit decreasing fills rows almost to the last token, but over a whole run it would put
short conversations where they fit best, and agent data are the short ones: their share
would fall as training goes on. So it works on one window of the mix after the other. A bin
(a packed row) that a window cannot fill stays open for the next window and leaves with it:
nothing waits for longer, nothing is dropped, and a window's bins do not depend on what
comes after it.

The bins of a window are then dealt to global batches so that each has its part of agent
data (`dataset_builders.mixing.dealing`).
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, compress
from operator import not_

import numpy as np
import numpy.typing as npt

from dataset_builders.errors import ConfigError
from dataset_builders.mixing.dealing import Dealer

WINDOW = 1000
"""Default number of examples that are packed together; some five batches of 64 rows."""

MAX_WINDOW = 65_536
"""Largest window; the arithmetic that deals bins to batches is sized for it."""

FULL = 0.995
"""Share of its capacity from which on a bin does not wait for the next window."""

Index = npt.NDArray[np.int64]

_BITS = 32  # a bin's number, below the space that it has left


@dataclass(frozen=True, slots=True)
class Bins:
    """Packed rows, in the order of training.

    Attributes:
        positions: (N,) int64, positions in the mix, bin after bin, ascending in each.
        offsets: (B + 1,) int64; bin b holds positions[offsets[b]:offsets[b + 1]].
        tokens: (B,) int64, tokens in each bin.
        capacity: Tokens that a bin can hold.
        settled: Bins at the start that a longer mix would begin with, too.
    """

    positions: Index
    offsets: Index
    tokens: Index
    capacity: int
    settled: int

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, number: int) -> Index:
        """Positions of the examples in one bin."""
        if not -len(self) <= number < len(self):
            raise IndexError(f"bin {number} of {len(self)}")
        number %= len(self)
        return self.positions[self.offsets[number] : self.offsets[number + 1]]

    @property
    def fill(self) -> float:
        """Share of the capacity that holds tokens, in [0, 1]; 1 if there is no bin."""
        return float(self.tokens.sum() / (len(self) * self.capacity)) if len(self) else 1.0

    def head(self, count: int) -> Bins:
        """The first bins, as many as are asked for or there are; a view."""
        offsets, tokens = self.offsets[: count + 1], self.tokens[:count]
        settled = min(self.settled, count)
        return Bins(self.positions[: offsets[-1]], offsets, tokens, self.capacity, settled)

    def sums(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        """Sum over each bin of a value that every position of the mix has; (B,) float64."""
        before = np.concatenate([[0.0], np.cumsum(values[self.positions], dtype=np.float64)])
        return np.diff(before[self.offsets])


def pack(
    lengths: Index,
    *,
    capacity: int,
    batch: int = 1,
    window: int = WINDOW,
    agent: npt.NDArray[np.bool_] | None = None,
    trained: Index | None = None,
) -> Bins:
    """Pack the examples of a mix into rows, window by window.

    A pure function of its arguments. An example of window w is in a bin that leaves with
    window w or w + 1, and only examples of windows up to w decide on the bins that leave
    with w: a longer mix has the same bins up to its last complete window.

    Args:
        lengths: (N,) int, tokens of each example in the mix's order.
        capacity: Tokens of a packed row.
        batch: Packed rows in a global batch. Agent data are spread evenly over batches,
            those beyond the last whole one included.
        window: Examples packed together.
        agent: (N,) bool, true for agent data; without it bins stay in the order of their
            first example.
        trained: (N,) int, tokens of each example that the loss covers, of which batches
            then get even shares of agent data too, as far as the examples allow.

    Raises:
        ConfigError: An example does not fit into a row, naming it; or a setting is out of
            range.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    _check(lengths, capacity, batch, window, agent, trained)
    dealer = None
    if agent is not None:
        dealer = Dealer(np.asarray(agent, dtype=bool), trained, batch)
    bins: list[list[int]] = []
    settled = 0
    for leaving in _windows(lengths, capacity, window, dealer):
        settled = len(bins)  # the last window's bins depend on where the mix ends
        bins += leaving if dealer is None else dealer.deal(leaving)
    sizes = np.fromiter(map(len, bins), dtype=np.int64, count=len(bins))
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    flat = chain.from_iterable(bins)
    positions = np.fromiter(flat, dtype=np.int64, count=int(offsets[-1]))
    before = np.concatenate([[0], np.cumsum(lengths[positions])])
    return Bins(positions, offsets, np.diff(before[offsets]), capacity, settled)


def pack_to_fill(
    draw: Callable[[int], Index],
    lengths: Index,
    count: int,
    *,
    capacity: int,
    batch: int,
    window: int = WINDOW,
    agent: npt.NDArray[np.bool_] | None = None,
    trained: Index | None = None,
) -> tuple[Index, Bins]:
    """Draw as many examples of a mix as it takes to fill a number of packed rows.

    Args:
        draw: Gives the rows of the first n examples at least, (>= n,) int64. The first n
            must not depend on n.
        lengths: (R,) int, tokens of each row.
        count: Packed rows wanted: optimizer steps times global batch.
        capacity: See `pack`.
        batch: See `pack`.
        window: See `pack`.
        agent: (R,) bool, whether a row is agent data.
        trained: (R,) int, trained tokens of each row.

    Returns:
        (N,) int64, the row of each example that was drawn, and `count` bins of them. The
        examples drawn beyond the last bin are in none. The bins are those that any longer
        mix would begin with.

    Raises:
        ConfigError: See `pack`.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if count < 1:
        raise ConfigError(f"packing: count: found {count}, expected at least 1 packed row")
    spare = 3 * window  # the last window's bins are not settled, and some wait
    # A mix's mean length is not its sources': it is measured on what is drawn.
    number = math.ceil(count * capacity / lengths[draw(spare)].mean()) + spare
    while True:
        order = np.asarray(draw(number), dtype=np.int64)
        bins = pack(
            lengths[order],
            capacity=capacity,
            batch=batch,
            window=window,
            agent=None if agent is None else agent[order],
            trained=None if trained is None else trained[order],
        )
        if bins.settled >= count:
            return order, bins.head(count)
        number = math.ceil(len(order) * max(1.05, 1.02 * count / max(bins.settled, 1)))


def _check(
    lengths: Index,
    capacity: int,
    batch: int,
    window: int,
    agent: npt.NDArray[np.bool_] | None,
    trained: Index | None,
) -> None:
    for name, value in (("capacity", capacity), ("batch", batch), ("window", window)):
        if value < 1:
            raise ConfigError(f"packing: {name}: found {value}, expected at least 1")
    if window > MAX_WINDOW:
        raise ConfigError(f"packing: window: found {window}, expected at most {MAX_WINDOW}")
    for name, column in (("agent", agent), ("trained", trained)):
        if column is not None and len(column) != len(lengths):
            raise ConfigError(
                f"packing: {name}: found {len(column)} values, expected {len(lengths)}"
            )
    wrong = np.flatnonzero((lengths > capacity) | (lengths < 1))
    if wrong.size:
        raise ConfigError(
            f"packing: example {wrong[0]}: found {lengths[wrong[0]]} tokens, expected 1 to "
            f"{capacity}, the length of a packed row"
        )


def _windows(
    lengths: Index, capacity: int, window: int, dealer: Dealer | None
) -> Iterator[list[list[int]]]:
    """The bins that leave with each window, in the order of their first example."""
    enough = int(capacity * (1 - FULL))
    bins: list[list[int]] = []
    spaces: list[int] = []
    for start in range(0, len(lengths), window):
        stop = min(start + window, len(lengths))
        old = len(bins)
        _best_fit(lengths, start, stop, capacity, bins, spaces)
        waits = [False] * len(bins)
        if stop < len(lengths):
            waits[old:] = [space > enough for space in spaces[old:]]
            if dealer is not None:
                waits[old:] = dealer.hold_back(bins[old:], waits[old:])
        yield sorted(sorted(members) for members in compress(bins, map(not_, waits)))
        bins, spaces = list(compress(bins, waits)), list(compress(spaces, waits))


def _best_fit(
    lengths: Index,
    start: int,
    stop: int,
    capacity: int,
    bins: list[list[int]],
    spaces: list[int],
) -> None:
    """Put a window's examples, the longest first, each into the bin it fills best.

    Bins are kept sorted by the space they have left, so the best one is found by bisection.

    Args:
        lengths: (N,) int64, tokens of each example.
        start: First example of the window.
        stop: Its end.
        capacity: Tokens that a new bin can hold.
        bins: Members of each bin, those still open at first; changed.
        spaces: Tokens that each has left; changed.
    """
    keys = sorted((space << _BITS) + number for number, space in enumerate(spaces))
    order = np.argsort(-lengths[start:stop], kind="stable") + start
    for position, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        place = bisect_left(keys, length << _BITS)
        if place < len(keys):
            key = keys.pop(place)
            number = key & ((1 << _BITS) - 1)
            bins[number].append(position)
        else:
            number = len(bins)
            key = (capacity << _BITS) + number
            bins.append([position])
            spaces.append(capacity)
        spaces[number] -= length
        if spaces[number]:
            insort(keys, key - (length << _BITS))
