"""Keyed permutations and hashes: stateless, reproducible randomness.

Written out rather than taken from numpy.random, whose streams may change between releases:
a seed must give the same order as long as a run can be resumed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Index = npt.NDArray[np.int64]
Word = npt.NDArray[np.uint64]
Reals = npt.NDArray[np.float64]

# One per round of the Feistel network; any distinct numbers work.
_ROUND_CONSTANTS = tuple(np.uint64(0xA0761D6478BD642F * k % 2**64) for k in range(1, 7))


def scramble(words: Word) -> Word:
    """Apply the splitmix64 finaliser, a bijection on 64-bit words that mixes every bit."""
    with np.errstate(over="ignore"):
        words = words + np.uint64(0x9E3779B97F4A7C15)
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return words ^ (words >> np.uint64(31))


def keys(seed: int, stream: int, numbers: Index) -> Word:
    """Return one key per number.

    Args:
        seed: Any integer; equal modulo 2**64 means equal.
        stream: Keys of different streams are unrelated.
        numbers: (N,) integers from 0.

    Returns:
        (N,) keys.
    """
    base = scramble(scramble(np.array([seed % 2**64], np.uint64)) ^ np.uint64(stream))
    return scramble(base ^ numbers.astype(np.uint64))


def uniforms(words: Word) -> Reals:
    """Return reals in [0, 1) from the upper 53 bits of keys."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permute(values: Index, size: Index, key: Word) -> Index:
    """Return each value's image under the permutation of range(size) that its key selects.

    A Feistel network over the next even power of two, walked until it lands inside of
    the range, so that one position costs the same as any other and nothing is stored.

    Args:
        values: (N,) integers, each in range(size).
        size: (N,) sizes of the ranges.
        key: (N,) keys.

    Returns:
        (N,) integers, each in range(size).
    """
    bits = np.ceil(np.log2(np.maximum(size, 2))).astype(np.uint64)
    half = (bits + np.uint64(1)) // np.uint64(2)
    mask = (np.uint64(1) << half) - np.uint64(1)
    bound = size.astype(np.uint64)
    result = values.astype(np.uint64)
    pending = np.arange(len(values))
    while pending.size:
        shift, low, salt = half[pending], mask[pending], key[pending]
        left, right = result[pending] >> shift, result[pending] & low
        for constant in _ROUND_CONSTANTS:
            left, right = right, left ^ (scramble(right ^ salt ^ constant) & low)
        result[pending] = (left << shift) | right
        pending = pending[result[pending] >= bound[pending]]
    return result.astype(np.int64)
