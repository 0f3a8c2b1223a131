"""Find spans that evaluation samples share with training records, allowing a few differing tokens.

The evaluation set, the small side, is indexed by its n-grams; the training set is streamed in
batches. Every shared n-gram is a seed, which is extended to the right token by token. A seed whose
left neighbours are equal, too, is covered by the one before it, so only seeds at the left end of an
equal run are looked at: identical instructions in a thousand records then cost a thousand seeds,
not a thousand times their length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dataset_builders.cleaning.hashing import Hashes, mix, window_hashes

EVALUATION_END = 0
"""Separator of the samples of an evaluation set."""

TRAINING_END = 1
"""Separator of training records; never equal to `EVALUATION_END`."""

UNKNOWN = 2
"""Id of training tokens that occur in no sample."""

FIRST_TOKEN = 3
"""Smallest id of a real token."""

_MAX_PAIRS = 2**14  # seeds per part: about 200 MB at the widest window
_WINDOWS = (16, 64, 256)  # tokens compared at a time; most seeds end in the first
_FILTER_BITS = 22

Tokens = npt.NDArray[np.int64]
_Indices = npt.NDArray[np.int64]


class Spans(NamedTuple):
    """Shared spans, as parallel arrays.

    Attributes:
        samples: (K,) position of the first token in the joined evaluation samples.
        records: (K,) position of the first token in the joined training records.
        lengths: (K,) tokens, those that differ included.
    """

    samples: _Indices
    records: _Indices
    lengths: _Indices


def join(sequences: Sequence[Tokens], end: int) -> tuple[Tokens, _Indices]:
    """Concatenate sequences, with separators before, between and after them.

    Returns:
        The tokens, followed by ends for as far as a comparison may reach, and the (K,)
        position of each sequence's first token.
    """
    parts: list[Tokens] = []
    border = np.array([end], np.int64)
    for sequence in sequences:
        parts += [border, sequence]
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    starts = np.cumsum(lengths + 1) - lengths
    reach = np.full(sum(_WINDOWS) + 1, end, np.int64)
    return np.concatenate([*parts, reach]), starts


class NgramIndex:
    """Index of the n-grams of an evaluation set.

    Args:
        tokens: Its samples, from `join` with `EVALUATION_END`.
        order: Tokens of an n-gram; also the first tokens of a span, all of which agree.
        skips: Tokens of a span that may differ.
    """

    def __init__(self, tokens: Tokens, *, order: int, skips: int) -> None:
        self.tokens = tokens
        self._order = order
        self._skips = skips
        hashes = _ngram_hashes(tokens, order)
        border = np.concatenate([[0], np.cumsum(tokens == EVALUATION_END)])
        starts = np.arange(len(hashes))
        starts = starts[border[starts + order] == border[starts]]
        self._keys, groups = np.unique(hashes[starts], return_inverse=True)
        self._scale = np.int64(max(int(tokens.max(initial=0)), UNKNOWN) + 1)
        # Sorted by n-gram, then by the token before it, so one number holds both.
        combined = groups.astype(np.int64) * self._scale + tokens[starts - 1]
        order_ = np.argsort(combined, kind="stable")
        self._combined = combined[order_]
        self._starts = starts[order_]
        self._bounds = np.searchsorted(
            self._combined, np.arange(len(self._keys) + 1) * self._scale, side="left"
        )
        self._filter = np.zeros(2**_FILTER_BITS, np.bool_)
        self._filter[_filter_slots(self._keys)] = True

    def spans(self, training: Tokens) -> Iterator[Spans]:
        """Find the shared spans that start at the left end of an equal run.

        Every shared span lies within one of them.

        Args:
            training: Records, from `join` with `TRAINING_END`.

        Yields:
            Spans longer than the n-gram, in parts of bounded size.
        """
        places, groups = self._seeds(training)
        before = np.minimum(training[places - 1], self._scale - 1)
        first, last = self._bounds[groups], self._bounds[groups + 1]
        same = groups * self._scale + before
        low = np.searchsorted(self._combined, same, side="left")
        high = np.searchsorted(self._combined, same, side="right")
        # A token above the samples' maximum was clipped to it, which may be a real one.
        cut = training[places - 1] >= self._scale
        low[cut], high[cut] = first[cut], first[cut]
        left, right = low - first, last - high
        for part in _parts(left + right):
            which = np.repeat(part, (left + right)[part])
            rank = _ranks((left + right)[part])
            entry = np.where(
                rank < left[which], first[which] + rank, high[which] + rank - left[which]
            )
            yield self._extend(training, self._starts[entry], places[which])

    def _seeds(self, training: Tokens) -> tuple[_Indices, _Indices]:
        """Return positions in training of the samples' n-grams, and which n-grams these are."""
        hashes = _ngram_hashes(training, self._order)
        places = np.flatnonzero(self._filter[_filter_slots(hashes)])
        if not len(self._keys):
            return places[:0], places[:0]
        groups = np.searchsorted(self._keys, hashes[places])
        groups = np.minimum(groups, len(self._keys) - 1)
        found = self._keys[groups] == hashes[places]
        return places[found], groups[found]

    def _extend(self, training: Tokens, samples: _Indices, records: _Indices) -> Spans:
        steps = np.arange(self._order)
        # Equal hashes are no proof, so the tokens are compared.
        equal = self.tokens[samples[:, None] + steps] == training[records[:, None] + steps]
        real = equal.all(axis=1)
        samples, records = samples[real], records[real]
        lengths = np.full(len(samples), self._order, np.int64)
        misses = np.zeros(len(samples), np.int64)
        active = np.arange(len(samples))
        done = self._order
        widths = chain(_WINDOWS, repeat(_WINDOWS[-1]))
        while len(active):
            width = next(widths)
            steps = np.arange(done, done + width)
            ours = self.tokens[samples[active, None] + steps]
            theirs = training[records[active, None] + steps]
            equal = ours == theirs
            over = (ours == EVALUATION_END) | (theirs == TRAINING_END)
            cost = np.where(over, self._skips + 1, ~equal)
            total = misses[active, None] + np.cumsum(cost, axis=1)
            good = equal & (total <= self._skips)
            # The last valid place of each row, from 1; 0 if there is none.
            last = np.where(good.any(axis=1), width - good[:, ::-1].argmax(axis=1), 0)
            lengths[active] = np.where(last > 0, done + last, lengths[active])
            misses[active] = total[:, -1]
            active = active[total[:, -1] <= self._skips]
            done += width
        longer = lengths > self._order
        return Spans(samples[longer], records[longer], lengths[longer])


def _ngram_hashes(tokens: Tokens, order: int) -> Hashes:
    return window_hashes(mix(tokens.astype(np.uint64)), order)


def _filter_slots(hashes: Hashes) -> Hashes:
    return hashes >> np.uint64(64 - _FILTER_BITS)


def _parts(counts: _Indices) -> Iterator[_Indices]:
    """Split entries so that the counts of a part add up to a bounded number."""
    entries = np.flatnonzero(counts)
    total = np.cumsum(counts[entries])
    start = 0
    while start < len(entries):
        before = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, before + _MAX_PAIRS, side="right")))
        yield entries[start:stop]
        start = stop


def _ranks(counts: _Indices) -> _Indices:
    """Return 0, 1, ... within each entry repeated `count` times."""
    ends = np.cumsum(counts)
    return np.arange(int(ends[-1])) - np.repeat(ends - counts, counts)
