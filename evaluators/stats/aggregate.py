"""Aggregate the records of items to figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evaluators.stats.intervals import Z95, Metric, mean, proportion, ratio


def summarise(records: Sequence[Mapping[str, Any]], *, macro: bool = False) -> dict[str, Metric]:
    """Return a figure for every score that any record has.

    Args:
        records: Measured ones, see `evaluator.Record`. If they have a `weight`, a figure is the
            weighted mean.
        macro: Whether a figure is the mean of the groups' means.

    Returns:
        Rates with Wilson's interval if all values are 0 or 1, means otherwise.
    """
    names = dict.fromkeys(name for record in records for name in record["scores"])
    return {name: _figure(name, records, macro) for name in names}


def _figure(name: str, records: Sequence[Mapping[str, Any]], macro: bool) -> Metric:
    scored = [record for record in records if name in record["scores"]]
    values = [float(record["scores"][name]) for record in scored]
    if macro:
        groups: dict[str, list[float]] = {}
        for record, value in zip(scored, values, strict=True):
            groups.setdefault(str(record.get("group", "")), []).append(value)
        return mean_of_means(list(groups.values()))
    if any("weight" in record for record in scored):
        weights = [float(record["weight"]) for record in scored]
        return ratio([v * w for v, w in zip(values, weights, strict=True)], weights)
    if all(value in (0.0, 1.0) for value in values):
        return proportion(int(sum(values)), len(values))
    return mean(values)


def mean_of_means(groups: Sequence[Sequence[float]]) -> Metric:
    """Return the mean of the groups' means, with equal weights.

    If all values are 0 or 1, the interval is that of rates with two successes and two failures
    added, in equal parts to the groups (Agresti and Coull), so that a group of only 0 does not
    count as certain. Otherwise the variance of a group of one item is unknown and taken to be the
    mean of the others'; without a group of two items or more the standard error is infinite.
    """
    means = [math.fsum(group) / len(group) for group in groups]
    binary = all(value in (0.0, 1.0) for group in groups for value in group)
    added = 2 / len(groups) if binary else 0.0
    variances = [_variance(group, added) for group in groups if added or len(group) > 1]
    known = math.fsum(variances) * len(groups) / len(variances) if variances else math.inf
    stderr = math.sqrt(known) / len(groups)
    value = math.fsum(means) / len(means)
    low, high = value - Z95 * stderr, value + Z95 * stderr
    if binary:
        center = math.fsum(_shrunk(g, 2 / len(groups))[0] for g in groups) / len(groups)
        low = min(value, max(0.0, center - Z95 * stderr))
        high = max(value, min(1.0, center + Z95 * stderr))
    return Metric(value, stderr, low, high, sum(map(len, groups)))


def _shrunk(group: Sequence[float], added: float) -> tuple[float, float]:
    """Return rate and size of a group with pseudo-counts of successes and failures added."""
    n = len(group) + 2 * added
    return (math.fsum(group) + added) / n, n


def _variance(group: Sequence[float], added: float) -> float:
    """Return the variance of a group's mean."""
    if added:
        rate, size = _shrunk(group, added)
        return rate * (1 - rate) / size
    n, total = len(group), math.fsum(group)
    return math.fsum((value - total / n) ** 2 for value in group) / (n - 1) / n
