"""From the records of items to figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evaluators.statistics import Z95, Metric, mean, proportion, ratio


def summarise(records: Sequence[Mapping[str, Any]], *, macro: bool = False) -> dict[str, Metric]:
    """A figure for every score that any record has.

    Args:
        records: Measured ones, see `base.Record`. Where they have a `weight`, a figure is
            the weighted mean.
        macro: Whether a figure is the mean over the means of the groups.

    Returns:
        Shares with Wilson's interval where all values are 0 or 1, means otherwise.
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
    """Mean over the means of groups, each counting the same.

    A group of one item tells nothing of its spread; its variance is taken to be the mean
    of the others'. With no group of two items or more the standard error is infinite.
    """
    means = [math.fsum(group) / len(group) for group in groups]
    variances = [
        math.fsum((value - center) ** 2 for value in group) / (len(group) - 1) / len(group)
        for group, center in zip(groups, means, strict=True)
        if len(group) > 1
    ]
    known = math.fsum(variances) * len(groups) / len(variances) if variances else math.inf
    stderr = math.sqrt(known) / len(groups)
    value = math.fsum(means) / len(means)
    n = sum(map(len, groups))
    return Metric(value, stderr, value - Z95 * stderr, value + Z95 * stderr, n)
