"""Weights within agent and general data: by source, by task, by model.

The paper samples general data from GPT-4 and GPT-3.5 in the ratio 1 : 4 (its appendix), the
better answers five times as often as their number alone would give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dataset_builders.errors import ConfigError
from dataset_builders.mixing.order import Pool

GPT4_SHARE = 0.2
"""Share of GPT-4's conversations in the general data (paper, appendix: GPT-4 : GPT-3.5 = 1 : 4)."""

GPT4 = "gpt-4"


def weighted_pools(
    labels: Sequence[Any] | np.ndarray[Any, Any], weights: Mapping[str, float], what: str
) -> tuple[Pool, ...]:
    """Group rows by label and weight each group.

    Args:
        labels: (N,) label of each row, such as its task.
        weights: Weight by label, at least 0; rows of weight 0 are excluded.
        what: Name of the setting in errors.

    Raises:
        ConfigError: A weight is negative, all are 0, a label of a row has no weight, or a
            weight is given to a label that no row has.
    """
    found, inverse, counts = np.unique(
        np.asarray(labels, dtype=object), return_inverse=True, return_counts=True
    )
    sizes = {str(label): int(count) for label, count in zip(found, counts, strict=True)}
    listed = ", ".join(f"{label or '(none)'} ({count:,} rows)" for label, count in sizes.items())
    for label, weight in weights.items():
        if not weight >= 0 or weight == float("inf"):
            raise ConfigError(f"{what}.{label}: found {weight}, expected a number of at least 0")
        if label not in sizes and weight > 0:
            raise ConfigError(f"{what}.{label}: no row has this label; the data has {listed}")
    unnamed = [label or "(none)" for label in sizes if label not in weights]
    if unnamed:
        raise ConfigError(
            f"{what}: no weight for {', '.join(unnamed)}; the data has {listed}; "
            "weight 0 leaves rows out"
        )
    pools = tuple(
        Pool(np.flatnonzero(inverse == number), float(weights[str(label)]))
        for number, label in enumerate(found)
        if weights[str(label)] > 0
    )
    if not pools:
        raise ConfigError(f"{what}: all weights are 0, expected one above")
    return pools


def model_pools(
    models: Sequence[Any] | np.ndarray[Any, Any], share: float
) -> tuple[tuple[Pool, ...], str]:
    """Give GPT-4's conversations their own share, if they are known.

    Args:
        models: (N,) model that answered in each row, "" if unknown.
        share: Share of GPT-4's rows, in (0, 1).

    Returns:
        The pools, empty if the ratio cannot be applied, and a line that reports what was done.
    """
    names = np.asarray(models, dtype=object)
    strong = names == GPT4
    unknown, number = int((names == "").sum()), len(names)
    ratio = f"the ratio of GPT-4 to other conversations ({share:g} : {1 - share:g})"
    if strong.all() or not strong.any():
        found = "all are GPT-4's" if number and strong.all() else f"none of {number:,} is GPT-4's"
        if unknown:
            found = f"of {unknown:,} of {number:,} rows it is not known which model answered"
        return (), f"{ratio} could not be applied: {found}"
    pools = (Pool(np.flatnonzero(strong), share), Pool(np.flatnonzero(~strong), 1 - share))
    line = f"{ratio} was applied: {int(strong.sum()):,} rows of GPT-4, {number:,} in all"
    if unknown:
        line += f"; {unknown:,} of unknown origin count among the others"
    return pools, line
