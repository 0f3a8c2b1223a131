"""Paired comparison of two evaluations of the same tasks: change, interval and p-value.

Comparing task by task removes the variance between tasks, which is most of the variance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluators.stats.intervals import proportion

Floats = npt.NDArray[np.float64]


def is_loss(score: str) -> bool:
    """Whether lower is better: a loss such as "loss" or "loss_os", or a divergence, "kl"."""
    return score in ("loss", "kl") or score.startswith(("loss_", "kl_"))


_FLIPS = 20_000
"""Sign patterns of a permutation test: all of them up to 14 changed tasks, else a random sample."""


@dataclass(frozen=True, slots=True)
class Change:
    """Change of a score between two evaluations of the same tasks.

    Attributes:
        before: The score over the common tasks.
        after: Likewise.
        value: `after - before`.
        stderr: Standard error of `value`.
        low: Lower end of the 95 % interval of `value`.
        high: Upper end of it.
        p_value: Two-sided, of no change. Exact binomial (McNemar) where every task scores
            0 or 1, a sign-flip permutation test otherwise; NaN if a score is NaN.
        n: Number of common tasks.
        better: Tasks that got better.
        worse: Tasks that got worse.
    """

    before: float
    after: float
    value: float
    stderr: float
    low: float
    high: float
    p_value: float
    n: int
    better: tuple[str, ...]
    worse: tuple[str, ...]


def paired_change(
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]],
    score: str,
    *,
    macro: bool = False,
) -> Change:
    """Compare a score over the tasks that both evaluations measured.

    The interval is Newcombe's for paired proportions (his method 10, 1998), which holds at
    small n and at rates near 0 and 1, or Student's otherwise, clipped to the possible change of a
    share; with a single task that does not score 0 or 1 it is the whole range.

    Args:
        before: Records, see `evaluator.Record`; tasks without the score are ignored.
        after: Likewise; groups and weights are taken from these.
        score: Name of the score.
        macro: Whether the score is the mean of the groups' means.

    Raises:
        ValueError: No task has the score in both.
    """
    first = {record["item"]: record for record in before if score in record["scores"]}
    pairs = [
        (first[record["item"]], record)
        for record in after
        if score in record["scores"] and record["item"] in first
    ]
    if not pairs:
        raise ValueError(f"found no task with a {score} in both measurements")
    items = [str(record["item"]) for _, record in pairs]
    old = np.array([float(record["scores"][score]) for record, _ in pairs])
    new = np.array([float(record["scores"][score]) for _, record in pairs])
    groups = [str(record.get("group", "")) if macro else "" for _, record in pairs]
    shares = score_shares([record for _, record in pairs], groups)
    both = np.stack([old, new])
    binary = len(set(shares)) == 1 and bool(np.isin(both, (0.0, 1.0)).all())
    difference = new - old
    value = float(shares @ difference)
    stderr = _stderr(difference, shares, groups)
    low, high = _newcombe(old, new) if binary else _student(value, stderr, len(items), groups)
    if not is_loss(score) and bool(((both >= 0) & (both <= 1)).all()):
        low, high = max(-1.0, low), min(1.0, high)  # A share changes by at most 1.
    gain = -difference if is_loss(score) else difference
    return Change(
        before=float(shares @ old),
        after=float(shares @ new),
        value=value,
        stderr=stderr,
        low=low,
        high=high,
        p_value=_mcnemar(difference) if binary else _sign_flips(shares * difference),
        n=len(items),
        better=tuple(item for item, g in zip(items, gain, strict=True) if g > 0),
        worse=tuple(item for item, g in zip(items, gain, strict=True) if g < 0),
    )


def score_shares(records: Sequence[Mapping[str, Any]], groups: Sequence[str]) -> Floats:
    """Return the weight of each task in the score; they sum to 1."""
    sizes = {group: groups.count(group) for group in set(groups)}
    if len(sizes) > 1:
        return np.array([1 / (len(sizes) * sizes[group]) for group in groups])
    weights = np.array([float(record.get("weight", 1.0)) for record in records])
    return np.asarray(weights / weights.sum())


def _stderr(difference: Floats, shares: Floats, groups: Sequence[str]) -> float:
    """Return the standard error of the mean difference, stratified by group if there are any."""
    labels = np.array(groups)
    total, known = 0.0, 0
    for group in set(groups):
        inside = labels == group
        n = int(inside.sum())
        if n > 1:
            part = shares[inside] / shares[inside].sum()
            residuals = difference[inside] - part @ difference[inside]
            total += float((part**2 * residuals**2).sum()) * n / (n - 1)
            known += 1
    if not known:
        return math.inf
    return math.sqrt(total / known / len(set(groups)))


def _student(value: float, stderr: float, n: int, groups: Sequence[str]) -> tuple[float, float]:
    if not math.isfinite(stderr):
        return -math.inf, math.inf
    from scipy.special import stdtrit

    half = float(stdtrit(n - len(set(groups)), 0.975)) * stderr
    return value - half, value + half


def _newcombe(old: Floats, new: Floats) -> tuple[float, float]:
    n = len(old)
    a, b = proportion(int(new.sum()), n), proportion(int(old.sum()), n)
    both = float((old * new).sum())
    neither = float(((1 - old) * (1 - new)).sum())
    up, down = float(((1 - old) * new).sum()), float((old * (1 - new)).sum())
    product = (both + up) * (down + neither) * (both + down) * (up + neither)
    top = both * neither - up * down
    # Newcombe's continuity correction, for positive association only.
    top = max(top - n / 2, 0.0) if top > 0 else top
    phi = top / math.sqrt(product) if product else 0.0
    value = a.value - b.value

    def half(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))

    low = value - half(a.value - a.low, b.high - b.value)
    high = value + half(a.high - a.value, b.value - b.low)
    return max(-1.0, low), min(1.0, high)


def _mcnemar(difference: Floats) -> float:
    """Return McNemar's exact p-value: by chance, changed tasks improve and regress equally."""
    from scipy.stats import binomtest

    up, down = int((difference > 0).sum()), int((difference < 0).sum())
    return float(binomtest(up, up + down).pvalue) if up + down else 1.0


def _sign_flips(parts: Floats) -> float:
    """Return the share of sign patterns whose sum is at least as far from 0."""
    from scipy.stats import monte_carlo_test, permutation_test

    if np.isnan(parts).any():
        return math.nan  # A NaN is not comparable with any pattern, which must not give p = 0.
    moved = parts[parts != 0]
    if len(moved) < 2:
        return 1.0

    def distance(values: Floats, axis: int) -> Floats:
        return np.asarray(np.abs(values.sum(axis)))

    if 2 ** len(moved) <= _FLIPS:
        every = permutation_test(
            (moved,),
            distance,
            permutation_type="samples",  # one sample: each sign is flipped independently
            alternative="greater",
            n_resamples=_FLIPS,
        )
        return float(every.pvalue)
    random = np.random.default_rng(0)
    # permutation_test sorts random numbers for each pattern: 15 times slower.
    drawn = monte_carlo_test(
        moved,
        lambda size: random.choice((-1.0, 1.0), size) * moved,
        distance,
        alternative="greater",
        n_resamples=_FLIPS,
        batch=max(1, 2_000_000 // len(moved)),  # 16 MB of values per batch
        vectorized=True,
    )
    return float(drawn.pvalue)
