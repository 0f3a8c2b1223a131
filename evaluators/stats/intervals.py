"""Confidence intervals of figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z95 = 1.959963984540054
"""Standard normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure with its uncertainty.

    Attributes:
        value: The estimate.
        stderr: Its standard error, in the unit of the value.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        n: Number of independent items behind it.
    """

    value: float
    stderr: float
    low: float
    high: float
    n: int


def proportion(successes: int, n: int) -> Metric:
    """Success rate with Wilson's interval, which is also valid near 0 and 1.

    Raises:
        ValueError: `n` is below 1 or `successes` is not within 0 and `n`.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"found {successes} successes of {n}")
    from scipy.stats import binomtest

    rate = successes / n
    interval = binomtest(successes, n).proportion_ci(0.95, "wilson")
    stderr = math.sqrt(rate * (1 - rate) / n)
    return Metric(rate, stderr, float(interval.low), float(interval.high), n)


def mean(values: Sequence[float]) -> Metric:
    """Arithmetic mean with its normal interval.

    Raises:
        ValueError: There are no values.
    """
    return ratio(values, [1.0] * len(values))


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Metric:
    """Sum of numerators over sum of denominators, as in a mean loss per token.

    Items, not tokens, are independent, so the standard error is the delta method's for a
    ratio of sums over items. With a single item it is infinite.

    Raises:
        ValueError: There is no item, or the denominators sum to 0.
    """
    n = len(numerators)
    total = math.fsum(denominators)
    if n < 1 or total == 0:
        raise ValueError("found no item to average over")
    value = math.fsum(numerators) / total
    residuals = math.fsum(
        (top - value * bottom) ** 2 for top, bottom in zip(numerators, denominators, strict=True)
    )
    stderr = math.sqrt(residuals * n / (n - 1)) / abs(total) if n > 1 else math.inf
    return Metric(value, stderr, value - Z95 * stderr, value + Z95 * stderr, n)


def log_sum(values: Sequence[float]) -> float:
    """Return the logarithm of a sum of probabilities given by their logarithms."""
    top = max(values, default=-math.inf)
    if top == -math.inf:
        return top
    # Rounded probabilities of a server may sum to slightly more than 1.
    return min(0.0, top + math.log(math.fsum(math.exp(value - top) for value in values)))
