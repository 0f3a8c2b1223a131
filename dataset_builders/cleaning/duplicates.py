"""Detect conversations that a source holds more than once, exactly or nearly.

Memory is 100 bytes per conversation for exact and 2.8 kB for near duplicates, whatever its length:
the texts themselves are not kept.

Why not datasketch 2.0: on the 16,789 different chats of the public ShareGPT file its MinHash and
LSH take 10.7 times the processor time (14.97 s, ours 1.40 s). It refuses 132 chats, of which 111
have an earlier one that is truly alike at 0.8; ours refuses 136, of which 125 have one
(`benchmarks/clean_chat.py`). Another estimate would also drop other chats, and so change the rows
of every existing mix.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from dataset_builders.cleaning.hashing import BASE, Hashes, mix, window_hashes
from dataset_builders.errors import ConfigError
from dataset_builders.readers.building import RecordDroppedError

SHINGLE = 5
"""Words per shingle."""

_MIN_SHINGLES = 50
"""Below this most bins are empty and the estimate is a guess: greetings look alike."""

_BINS = 128
_BANDS = 18
_ROWS = 7  # bins of a band; see NearDuplicates
_MOST_LATER = 64  # conversations of one band compared beside its first
_DIGEST = 16  # bytes; two of a billion texts collide with probability 1e-21

_EMPTY = np.uint64(2**64 - 1)
_SPACE = np.zeros(256, np.bool_)
_SPACE[[9, 10, 11, 12, 13, 32]] = True


class ExactDuplicates:
    """Rejects a conversation that is identical to an earlier one, character for character."""

    def __init__(self) -> None:
        self._seen: dict[bytes, str] = {}

    def check(self, turns: Iterable[tuple[str, str]], where: str) -> None:
        """Accept or reject a conversation.

        Args:
            turns: Role and content of each turn.
            where: The record, named in the message when a later one is rejected.

        Raises:
            RecordDroppedError: It is a duplicate (`duplicate`).
        """
        digest = hashlib.blake2b(digest_size=_DIGEST)
        for role, content in turns:
            raw = content.encode()
            # The length comes first, so that no text can imitate the boundary of two turns.
            digest.update(f"{role} {len(raw)} ".encode())
            digest.update(raw)
        key = digest.digest()
        if key in self._seen:
            raise RecordDroppedError(
                "duplicate", f"same turns as {self._seen[key]}, expected new ones"
            )
        self._seen[key] = where


class NearDuplicates:
    """Rejects a conversation much of whose text appeared in an earlier one.

    The measure is the Jaccard similarity of the sets of word 5-grams, estimated by one
    permutation hashing (Li, Owen, Zhang 2012): every 5-gram's hash falls into one of 128
    bins, which keeps its minimum; the share of bins that agree estimates the similarity,
    with a standard error of 0.035 at 0.8. Only conversations that agree in all bins of
    one of 18 bands of 7 are compared: with probability 0.99 at a similarity of 0.8, 0.13
    at 0.5. Empty bins are filled from the next one (Shrivastava, Li 2014). The trained turns must
    be similar too: a hundred questions about one long document are a hundred examples.

    Args:
        threshold: Lowest similarity that is rejected, above 0 and at most 1.

    Raises:
        ConfigError: The threshold is out of range.
    """

    def __init__(self, threshold: float) -> None:
        if not 0 < threshold <= 1:
            raise ConfigError(
                f"clean: near_duplicates: found {threshold}, expected a similarity above 0 and "
                "at most 1, or null"
            )
        self.threshold = threshold
        self._where: list[str] = []
        self._sketches = bytearray()
        self._answers = bytearray()
        self._bands: list[dict[bytes, int]] = [{} for _ in range(_BANDS)]
        # Accepted ones that share a band with its first one: few, so stored separately.
        self._later: dict[bytes, list[int]] = {}

    def check(self, text: str, where: str, trained: str | None = None) -> None:
        """Accept or reject a conversation.

        Args:
            text: All its turns.
            where: The record, named when a later one is refused for it.
            trained: Those of its turns that are trained on; None: compare the whole only.

        Raises:
            RecordDroppedError: It is similar to an accepted one (`near_duplicate`).
        """
        shingles = shingle_hashes(text)
        if len(shingles) < _MIN_SHINGLES:
            return
        sketch = _sketch(shingles)
        answers = sketch if trained is None else _sketch(_any_hashes(trained))
        raw = sketch.tobytes()
        width = _ROWS * sketch.itemsize
        keys = [raw[start : start + width] for start in range(0, _BANDS * width, width)]
        for index in self._candidates(keys):
            alike = _share_alike(self._sketches, index, sketch)
            if min(alike, _share_alike(self._answers, index, answers)) >= self.threshold:
                raise RecordDroppedError(
                    "near_duplicate",
                    f"about {alike:.0%} similar to {self._where[index]} in {SHINGLE}-word runs, "
                    f"expected less than {self.threshold:.0%}",
                )
        self._remember(keys, where)
        self._sketches += raw
        self._answers += answers.tobytes()

    def _candidates(self, keys: list[bytes]) -> list[int]:
        found: set[int] = set()
        for band, key in zip(self._bands, keys, strict=True):
            if key in band:
                found.update((band[key], *self._later.get(key, ())))
        return sorted(found)

    def _remember(self, keys: list[bytes], where: str) -> None:
        index = len(self._where)
        for band, key in zip(self._bands, keys, strict=True):
            if band.setdefault(key, index) != index:
                later = self._later.setdefault(key, [])
                later.append(index)
                # The oldest is evicted: duplicates are mostly close together.
                del later[:-_MOST_LATER]
        self._where.append(where)


def _share_alike(sketches: bytearray, index: int, sketch: npt.NDArray[np.uint16]) -> float:
    size = sketch.nbytes
    other = np.frombuffer(bytes(sketches[index * size : (index + 1) * size]), sketch.dtype)
    return float(np.mean(other == sketch))


def _any_hashes(text: str) -> Hashes:
    """Hash a text's shingles, or the whole text if it is shorter than one."""
    hashes = shingle_hashes(text)
    if len(hashes):
        return hashes
    digest = hashlib.blake2b(" ".join(text.lower().split()).encode(), digest_size=8)
    return np.frombuffer(digest.digest(), np.uint64)


def shingle_hashes(text: str) -> Hashes:
    """Hash every sequence of five words of a text, ignoring case.

    A word is what stands between white space. The hash is a polynomial in the bytes
    modulo 2**64, taken from running sums, so that no word is looked at by Python.

    Returns:
        (number of words - 4,) hashes; none of a text of fewer words.
    """
    raw = np.frombuffer(f" {text.lower()} ".encode(), np.uint8)
    space = _SPACE[raw]
    change = np.flatnonzero(space[1:] != space[:-1]) + 1
    starts, ends = change[::2], change[1::2]
    if len(starts) < SHINGLE:
        return np.empty(0, np.uint64)
    # All white space between two words counts as one blank: each word is hashed for itself.
    sums = np.zeros(len(raw) + 1, np.uint64)
    np.cumsum((raw.astype(np.uint64) + np.uint64(1)) * _powers(len(raw)), out=sums[1:])
    words = mix((sums[ends] - sums[starts]) * _inverse_powers(len(raw))[starts])
    return window_hashes(words, SHINGLE)


def _sketch(shingles: Hashes) -> npt.NDArray[np.uint16]:
    """Reduce (n,) hashes to (128,) bins of 16 bits, which agree by chance once in 65,536."""
    sketch = np.full(_BINS, _EMPTY)
    np.minimum.at(sketch, (shingles >> np.uint64(57)).astype(np.intp), shingles)
    filled = np.flatnonzero(sketch != _EMPTY)
    if len(filled) < _BINS:
        place = np.searchsorted(filled, np.arange(_BINS))
        donor = filled[place % len(filled)]
        # Marked by the distance: only bins filled from the same distance may agree.
        distance = ((donor - np.arange(_BINS)) % _BINS).astype(np.uint64)
        sketch = sketch[donor] + distance * BASE
    # The low bits: the high ones are the bin, and nearly the same in any least hash.
    return sketch.astype(np.uint16)


_tables: dict[str, Hashes] = {"powers": np.ones(1, np.uint64), "inverse": np.ones(1, np.uint64)}


def _powers(length: int) -> Hashes:
    return _table("powers", BASE, length)


def _inverse_powers(length: int) -> Hashes:
    return _table("inverse", np.uint64(pow(int(BASE), -1, 2**64)), length)


def _table(name: str, base: np.uint64, length: int) -> Hashes:
    if len(_tables[name]) < length:
        size = max(length, 2 * len(_tables[name]))
        factors = np.full(size, base)
        factors[0] = 1
        _tables[name] = np.cumprod(factors)
    return _tables[name][:length]
