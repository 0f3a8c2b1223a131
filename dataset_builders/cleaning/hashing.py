"""Vectorised hashes of sequences of numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

BASE = np.uint64(0x243F6A8885A308D3)
"""Odd, so that its powers have an inverse modulo 2**64; digits of pi, of no other meaning."""


def mix(values: Hashes) -> Hashes:
    """Mix the bits of each number with the finaliser of SplitMix64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def window_hashes(values: Hashes, length: int) -> Hashes:
    """Hash every window of a sequence.

    Args:
        values: (N,) numbers, well mixed.
        length: Numbers in a window, at least 1.

    Returns:
        (N - length + 1,) hashes; none of a shorter sequence.
    """
    count = len(values) - length + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    hashes = values[:count].copy()
    for place in range(1, length):
        hashes *= BASE
        hashes += values[place : place + count]
    return mix(hashes)
