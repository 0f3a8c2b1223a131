"""Agreement of two raters."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evaluators.stats.intervals import Z95, Metric


def cohen_kappa(first: Sequence[bool], second: Sequence[bool]) -> Metric | None:
    """Cohen's kappa of two raters' yes or no: agreement beyond chance, 1 at most.

    The standard error is Cohen's (1960), which takes the agreement by chance as known.

    Args:
        first: Ratings of one, one per item.
        second: Those of the other, in the same order.

    Returns:
        The figure; None if it is undefined: no item, or both gave every item the same rating.

    Raises:
        ValueError: Their numbers differ.
    """
    n = len(first)
    agreed = sum(a == b for a, b in zip(first, second, strict=True)) / max(n, 1)
    yes = (sum(first) / n, sum(second) / n) if n else (0.0, 0.0)
    chance = yes[0] * yes[1] + (1 - yes[0]) * (1 - yes[1])
    if not n or chance == 1.0:
        return None
    kappa = (agreed - chance) / (1 - chance)
    stderr = math.sqrt(agreed * (1 - agreed) / n) / (1 - chance)
    low, high = kappa - Z95 * stderr, kappa + Z95 * stderr
    return Metric(kappa, stderr, max(-1.0, low), min(1.0, high), n)
