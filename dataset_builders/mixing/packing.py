"""Pack several conversations into rows of fixed length, preserving the mix's order.

Best fit decreasing fills rows almost to the last token, but over a whole run it would put
short conversations where they fit best, and agent data are the short ones: their share would fall
during training. So it works window by window. A bin (a packed row) that a window cannot fill stays
open for the next window and leaves with it: nothing waits for longer, nothing is dropped, and a
window's bins do not depend on what comes after it.

The bins of a window are then distributed over global batches so that each has its share of agent
data (`dataset_builders.mixing.balancing`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_builders.errors import ConfigError
from dataset_builders.mixing.balancing import BatchBalancer
from dataset_builders.mixing.best_fit import Packer

WINDOW = 1000
"""Default number of examples packed together; about five batches of 64 rows."""

MAX_WINDOW = 65_536
"""Largest window; the arithmetic of `balancing` is sized for it."""

Index = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Bins:
    """Packed rows, in training order.

    Attributes:
        positions: (N,) int64, positions in the mix, bin after bin, ascending in each.
        offsets: (B + 1,) int64; bin b holds positions[offsets[b]:offsets[b + 1]].
        tokens: (B,) int64, tokens in each bin.
        capacity: Tokens that a bin can hold.
        settled: Number of leading bins that a longer mix would share.
    """

    positions: Index
    offsets: Index
    tokens: Index
    capacity: int
    settled: int

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, number: int) -> Index:
        """Return the positions of the examples in one bin."""
        if not -len(self) <= number < len(self):
            raise IndexError(f"bin {number} of {len(self)}")
        number %= len(self)
        return self.positions[self.offsets[number] : self.offsets[number + 1]]

    @property
    def fill(self) -> float:
        """Fraction of the capacity that holds tokens, in [0, 1]; 1 if there is no bin."""
        return float(self.tokens.sum() / (len(self) * self.capacity)) if len(self) else 1.0

    def head(self, count: int) -> Bins:
        """Return the first `count` bins, or all if there are fewer; a view."""
        offsets, tokens = self.offsets[: count + 1], self.tokens[:count]
        settled = min(self.settled, count)
        return Bins(self.positions[: offsets[-1]], offsets, tokens, self.capacity, settled)

    def sums(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        """Sum a per-position value over each bin; (B,) float64."""
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
    rows: Index | None = None,
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
        rows: (N,) int, the row that each example is a copy of: no bin gets two copies. Without it
            no two count as copies.

    Raises:
        ConfigError: An example does not fit into a row, naming it; or a setting is out of
            range.
    """
    packer = _packer(lengths, capacity, batch, window, agent, trained, rows)
    bins: list[list[int]] = []
    settled = 0
    for start in range(0, len(lengths), window):
        stop = min(start + window, len(lengths))
        settled = len(bins)  # the last window's bins depend on where the mix ends
        packer.fill(start, stop)
        bins += packer.leave(last=stop == len(lengths))
    return _as_bins(bins, lengths, capacity, settled)


def pack_exactly(
    lengths: Index,
    count: int,
    *,
    capacity: int,
    batch: int = 1,
    window: int = WINDOW,
    agent: npt.NDArray[np.bool_] | None = None,
    trained: Index | None = None,
    rows: Index | None = None,
) -> Bins | None:
    """Pack as many of a mix's first examples as fill a number of rows.

    All examples up to some position are in the bins and none beyond it, so that a run sees complete
    passes over a source. The bins are those of `pack` for as many examples; only the last window's
    depend on `count`.

    Args:
        lengths: See `pack`.
        count: Packed rows wanted.
        capacity: See `pack`.
        batch: See `pack`.
        window: See `pack`.
        agent: See `pack`.
        trained: See `pack`.
        rows: See `pack`.

    Returns:
        The bins, or None if the mix has too few examples.

    Raises:
        ConfigError: See `pack`.
    """
    packer = _packer(lengths, capacity, batch, window, agent, trained, rows)
    bins: list[list[int]] = []
    for start in range(0, len(lengths), window):
        stop = min(start + window, len(lengths))
        before = packer.copy()
        packer.fill(start, stop)
        if len(bins) + len(packer) > count:
            stop = _end(before, start, stop, count - len(bins))
            before.fill(start, stop)
            settled = len(bins)
            bins += before.leave(last=True)
            return _as_bins(bins, lengths, capacity, settled).head(count)
        bins += packer.leave(last=False)
    return None


def _end(packer: Packer, start: int, limit: int, count: int) -> int:
    """Return the end of the last window for so many bins."""

    def bins_up_to(stop: int) -> int:
        trial = packer.copy()
        trial.fill(start, stop)
        return len(trial)

    low, high = start, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if bins_up_to(middle) <= count else (low, middle - 1)
    if bins_up_to(low) == count:
        return low
    # One more example may take two more bins, since all others are placed again.
    return next(stop for stop in range(low + 1, limit + 1) if bins_up_to(stop) >= count)


def _packer(
    lengths: Index,
    capacity: int,
    batch: int,
    window: int,
    agent: npt.NDArray[np.bool_] | None,
    trained: Index | None,
    rows: Index | None,
) -> Packer:
    lengths = np.asarray(lengths, dtype=np.int64)
    columns = {"agent": agent, "trained": trained, "rows": rows}
    _check(lengths, capacity, batch, window, columns)
    dealer = None
    if agent is not None:
        dealer = BatchBalancer(np.asarray(agent, dtype=bool), trained, batch)
    return Packer(lengths, capacity, None if rows is None else np.asarray(rows), dealer)


def _as_bins(bins: list[list[int]], lengths: Index, capacity: int, settled: int) -> Bins:
    sizes = np.fromiter(map(len, bins), dtype=np.int64, count=len(bins))
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    flat = chain.from_iterable(bins)
    positions = np.fromiter(flat, dtype=np.int64, count=int(offsets[-1]))
    before = np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64)[positions])])
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
    """Draw as many examples of a mix as are needed to fill a number of packed rows.

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
        (N,) int64, the row of each example that was drawn, and `count` bins of them, see
        `pack_exactly`. The examples drawn beyond the last bin are in none.

    Raises:
        ConfigError: See `pack`.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if count < 1:
        raise ConfigError(f"packing: count: found {count}, expected at least 1 packed row")
    spare = 3 * window  # margin for bins that wait, and for the search for the last window's end
    # A mix's mean length differs from its sources', so it is measured on the drawn examples.
    number = math.ceil(count * capacity / lengths[draw(spare)].mean()) + spare
    while True:
        order = np.asarray(draw(number), dtype=np.int64)
        bins = pack_exactly(
            lengths[order],
            count,
            capacity=capacity,
            batch=batch,
            window=window,
            agent=None if agent is None else agent[order],
            trained=None if trained is None else trained[order],
            rows=order,
        )
        if bins is not None:
            return order, bins
        number = math.ceil(len(order) * 1.1)


def _check(
    lengths: Index, capacity: int, batch: int, window: int, columns: Mapping[str, Any]
) -> None:
    for name, value in (("capacity", capacity), ("batch", batch), ("window", window)):
        if value < 1:
            raise ConfigError(f"packing: {name}: found {value}, expected at least 1")
    if window > MAX_WINDOW:
        raise ConfigError(f"packing: window: found {window}, expected at most {MAX_WINDOW}")
    for name, column in columns.items():
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
