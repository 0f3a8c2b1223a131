"""Means and paired differences over training seeds and items: two-way clustered intervals.

Several runs that differ only in the seed measure the same items. A score then has two sources of
chance: which seed a run had and which items were drawn. Its variance is estimated as the sum of
the variance between the seeds' means and that between the items' means, each over their number:
the two-way cluster-robust variance (Cameron, Gelbach and Miller 2011, J. Business & Economic
Statistics 29) in its two-term form, which leaves out their subtraction: it is never negative, and
too large rather than too small by the variance within cells (MacKinnon, Nielsen and Webb 2021, J.
Business & Economic Statistics 39). Degrees of freedom are Satterthwaite's (1946), so that three
seeds count as three. A bootstrap over three seeds would be too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from evaluators.stats.aggregate import summarise
from evaluators.stats.paired import Change, is_loss, paired_change, score_shares

Floats = npt.NDArray[np.float64]
Run = Sequence[Mapping[str, Any]]
"""Records of one run, see `evaluator.Record`."""
Method = Literal["seeds and items", "items", "seeds"]


@dataclass(frozen=True, slots=True)
class Replicated:
    """A score, or a difference of two, over runs and items.

    Attributes:
        value: Mean over runs.
        stderr: Its standard error.
        low: Lower end of the 95 % interval.
        high: Upper end of it.
        runs: Number of runs.
        items: Number of items that all runs measured; with `method` "seeds" those of a run.
        left_out: Items that some, but not all of the runs measured.
        method: What the interval covers: with one run only the choice of items, with other items
            in each run the differences between runs.
        p_value: Two-sided, of no difference; NaN for a score.
        before: Of a difference, the mean score that `value` is the difference from.
    """

    value: float
    stderr: float
    low: float
    high: float
    runs: int
    items: int
    left_out: int
    method: Method
    p_value: float = math.nan
    before: float = math.nan


def replicated_mean(
    runs: Sequence[Run], score: str, *, macro: bool = False, same_items: bool = True
) -> Replicated:
    """Return the mean of a score over runs, with an interval over runs and items.

    Where all items score 0 or 1, the interval is Wilson's with the number of independent items
    that has this variance, and Student's quantile (Franco et al. 2019, J. Survey Statistics and
    Methodology 7); otherwise Student's. With one run, or without any variance, it is the
    interval of a single evaluation.

    Args:
        runs: Records by run.
        score: Name of the score; items without it are ignored.
        macro: Whether the score is the mean of the groups' means.
        same_items: Whether equal ids are equal items in all runs.

    Raises:
        ValueError: A run has no item with the score.
    """
    scored = [_scored(run, score) for run in runs]
    common = _common(scored) if same_items else []
    if len(runs) > 1 and not common:
        figures = [summarise(list(run.values()), macro=macro)[score].value for run in scored]
        return _over_seeds(figures, min(map(len, scored)))
    values, shares, groups = _matrix(scored, common, score, macro)
    left_out = len(set().union(*scored)) - len(common)
    mean = float(shares @ values.mean(axis=0))
    variance, df = _variance(values, shares, groups)
    if len(runs) == 1 or variance == 0:
        only = summarise([scored[0][item] for item in common], macro=macro)[score]
        method: Method = "items" if len(runs) == 1 else "seeds and items"
        return Replicated(
            mean, only.stderr, only.low, only.high, len(runs), len(common), left_out, method
        )
    low, high = _student(mean, variance, df)
    if not is_loss(score) and bool(((values >= 0) & (values <= 1)).all()):
        if (
            len(set(shares)) == 1
            and math.isfinite(variance)
            and bool(np.isin(values, (0.0, 1.0)).all())
        ):
            low, high = _wilson(mean, variance, df, values.size)
        low, high = max(0.0, low), min(1.0, high)
    return Replicated(
        mean, math.sqrt(variance), low, high, len(runs), len(common), left_out, "seeds and items"
    )


def replicated_change(
    before: Sequence[Run],
    after: Sequence[Run],
    score: str,
    *,
    macro: bool = False,
    same_items: bool = True,
) -> Replicated:
    """Return the mean paired difference of a score over pairs of runs and their items.

    With one pair this is `paired_change`. Otherwise p is that of a t test with the variance above.
    Where all items score 0 or 1, the variance of two changed items among two more is added
    (after Bonett and Price 2012), so that no difference counts as certain.

    Args:
        before: Records by run.
        after: Likewise, each run with that of the same place in `before`.
        score: Name of the score.
        macro: Whether the score is the mean of the groups' means.
        same_items: Whether equal ids are equal items in all pairs; in a pair they are.

    Raises:
        ValueError: A pair has no item with the score in common.
    """
    changes = [
        paired_change(old, new, score, macro=macro) for old, new in zip(before, after, strict=True)
    ]
    if len(changes) == 1:
        return _of_pair(changes[0], before[0], after[0], score)
    first, second = ([_scored(run, score) for run in runs] for runs in (before, after))
    common = _common([*first, *second]) if same_items else []
    base = math.fsum(change.before for change in changes) / len(changes)
    if not common:
        return _over_seeds(
            [change.value for change in changes],
            min(c.n for c in changes),
            tested=True,
            before=base,
        )
    old, shares, groups = _matrix(first, common, score, macro)
    new, shares, groups = _matrix(second, common, score, macro)
    difference = new - old
    value = float(shares @ difference.mean(axis=0))
    both = np.stack([old, new])
    binary = bool(np.isin(both, (0.0, 1.0)).all())
    added = 2 / (len(common) + 2) ** 2 if binary else 0.0
    variance, df = _variance(difference, shares, groups, added)
    low, high = _student(value, variance, df)
    if not is_loss(score) and bool(((both >= 0) & (both <= 1)).all()):
        low, high = max(-1.0, low), min(1.0, high)
    return Replicated(
        value,
        math.sqrt(variance),
        low,
        high,
        len(changes),
        len(common),
        len(set().union(*first, *second)) - len(common),
        "seeds and items",
        _p_value(value, variance, df),
        float(shares @ old.mean(axis=0)),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for multiple comparisons by Holm's procedure (1979); NaN stays NaN."""
    known = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    least = 0.0
    for rank, (p, place) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * p))
        adjusted[place] = least
    return adjusted


def _scored(run: Run, score: str) -> dict[str, Mapping[str, Any]]:
    found = {str(record["item"]): record for record in run if score in record["scores"]}
    if not found:
        raise ValueError(f"found no item with a {score}")
    return found


def _common(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the items of all runs, in the order of the first."""
    return [item for item in runs[0] if all(item in run for run in runs[1:])]


def _matrix(
    runs: Sequence[Mapping[str, Mapping[str, Any]]], items: Sequence[str], score: str, macro: bool
) -> tuple[Floats, Floats, npt.NDArray[np.str_]]:
    """Return the values, (runs, items), with each item's share of the score and its group."""
    values = np.array([[float(run[item]["scores"][score]) for item in items] for run in runs])
    records = [runs[0][item] for item in items]
    groups = [str(record.get("group", "")) if macro else "" for record in records]
    return values, score_shares(records, groups), np.array(groups)


def _variance(
    values: Floats, shares: Floats, groups: npt.NDArray[np.str_], added: float = 0.0
) -> tuple[float, float]:
    """Return the two-way clustered variance of a weighted mean and its degrees of freedom.

    Args:
        values: (runs, items).
        shares: (items,), of each item in the mean; they sum to 1.
        groups: (items,), strata within which items are drawn.
        added: Variance to add to that between items.
    """
    runs, items = values.shape
    if items == 1:
        return math.inf, 1.0
    names, sizes = np.unique(groups, return_counts=True)
    if sizes.max() == 1:  # Nothing is known of the variance within groups.
        groups, names, sizes = np.full(items, ""), np.array([""]), np.array([items])
    centred = np.empty_like(values)
    for name in names:
        inside = groups == name
        part = shares[inside] / shares[inside].sum()
        centred[:, inside] = values[:, inside] - part @ values[:, inside].mean(axis=0)
    influence = centred * shares  # A run's sum is its distance from the mean over runs.
    df_runs, df_items = runs - 1, items - len(names)
    between = float((influence.sum(axis=1) ** 2).sum()) / runs / df_runs if df_runs else 0.0
    # As in a single evaluation, groups of one item have the mean variance of the others.
    scale = items / df_items * len(names) / int((sizes > 1).sum())
    within = float((influence.mean(axis=0) ** 2).sum()) * scale + added
    total = between + within
    if total <= 1e-24 * float((values**2).max()):  # rounding
        return 0.0, float(df_items)
    return total, total**2 / (between**2 / max(df_runs, 1) + within**2 / df_items)


def _over_seeds(
    values: Sequence[float], items: int, *, tested: bool = False, before: float = math.nan
) -> Replicated:
    """Return the mean of runs that share no item: each is an independent observation."""
    mean = math.fsum(values) / len(values)
    df = len(values) - 1
    variance = math.fsum((value - mean) ** 2 for value in values) / df / len(values)
    low, high = _student(mean, variance, df)
    p = _p_value(mean, variance, df) if tested else math.nan
    return Replicated(
        mean, math.sqrt(variance), low, high, len(values), items, 0, "seeds", p, before
    )


def _of_pair(change: Change, before: Run, after: Run, score: str) -> Replicated:
    measured = {*_scored(before, score), *_scored(after, score)}
    return Replicated(
        change.value, change.stderr, change.low, change.high, 1, change.n,
        len(measured) - change.n, "items", change.p_value, change.before,
    )  # fmt: skip


def _student(value: float, variance: float, df: float) -> tuple[float, float]:
    from scipy.special import stdtrit

    if math.isinf(variance):
        return -math.inf, math.inf
    half = float(stdtrit(df, 0.975)) * math.sqrt(variance)
    return value - half, value + half


def _wilson(rate: float, variance: float, df: float, most: int) -> tuple[float, float]:
    """Return Wilson's interval of as many independent items as have this variance."""
    from scipy.special import stdtrit

    n = min(rate * (1 - rate) / variance, float(most))
    t = float(stdtrit(df, 0.975)) ** 2 / n
    centre, spread = (rate + t / 2) / (1 + t), math.sqrt(t * (rate * (1 - rate) + t / 4)) / (1 + t)
    return centre - spread, centre + spread


def _p_value(value: float, variance: float, df: float) -> float:
    from scipy.special import stdtr

    if math.isnan(value):
        return math.nan
    if variance == 0:
        return 1.0 if value == 0 else 0.0
    return float(2 * stdtr(df, -abs(value) / math.sqrt(variance)))
