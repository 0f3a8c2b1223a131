"""Accept or refuse a round: a paired test of the held-in figure, and floors under others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from agenttuning_plugin.reports.compare import Compared, compare_evaluations
from agenttuning_plugin.rounds.state import Facts
from dataset_builders.errors import ConfigError
from evaluators.stats.paired import is_loss
from evaluators.training.floors import ScoreFloor
from evaluators.training.schedule import EvaluationPolicy

Row = Mapping[str, Any]

_GUARDED = ("general", "safety")
"""Suites whose figures have a floor without the recipe naming one."""


def floors_of(policy: EvaluationPolicy, rows: Mapping[str, Row]) -> list[ScoreFloor]:
    """Return the floors: the recipe's, and the default one for other general and safety figures.

    Args:
        policy: The recipe's section `evaluation`.
        rows: Evaluations by evaluator.
    """
    floors = {floor.evaluator: floor for floor in policy.floors}
    for name, row in rows.items():
        if row.get("suite") in _GUARDED and name not in floors:
            floors[name] = ScoreFloor(evaluator=name)
    return list(floors.values())


def decide(
    evaluator: str,
    base: Mapping[str, Row],
    before: Mapping[str, Row],
    after: Mapping[str, Row],
    *,
    alpha: float,
    floors: Sequence[ScoreFloor],
) -> Facts:
    """Judge a round.

    Args:
        evaluator: The one whose main figure has to rise.
        base: Evaluations that the floors are below, by evaluator: those of the base model; where
            it lacks one, those of `before` stand in.
        before: Evaluations of the last accepted model.
        after: Evaluations of the round's model.
        alpha: Level of the one-sided paired test.
        floors: Largest tolerated drops.

    Returns:
        `accepted`, `reasons` against it, `figure` (of the held-in one), `p_value` (one-sided),
        `changes` (since the last accepted model, see `Compared.as_json`), and `learned` and
        `lost`, the tasks that succeeded only after and only before.

    Raises:
        ConfigError: The evaluator measured no common task in both.
    """
    held_in = _compared(evaluator, before, after)
    if held_in is None:
        raise ConfigError(
            f"{evaluator}: found no task that was measured before and after the round, expected "
            "the same tasks in both"
        )
    p_value = one_sided(held_in)
    reasons = []
    if held_in.differs:
        reasons.append(f"{held_in.label}: measured differently: {', '.join(held_in.differs)}")
    change = held_in.change
    if not (change.value > 0 and p_value < alpha):  # also where it is NaN
        reasons.append(
            f"{held_in.label} did not rise significantly: {change.before:.3f} to "
            f"{change.after:.3f} on {change.n} tasks ({len(change.better)} better, "
            f"{len(change.worse)} worse, p = {p_value:.3f}, expected below {alpha:g})"
        )
    for floor in floors:
        reasons += _broken(floor, {**before, **base}, after)
    changes = [each for name in after if (each := _compared(name, before, after))]
    return {
        "accepted": not reasons,
        "reasons": reasons,
        "figure": [evaluator, held_in.figure],
        "p_value": p_value,
        "changes": [each.as_json() | {"percent": each.percent} for each in changes],
        "since_base": [
            each.as_json() | {"percent": each.percent}
            for name in after
            if (each := _compared(name, base, after))
        ],
        "learned": list(change.better),
        "lost": list(change.worse),
    }


def one_sided(compared: Compared) -> float:
    """Return the p-value of "it did not rise"; both of the two-sided tests are symmetric."""
    p_value = compared.change.p_value
    return p_value / 2 if compared.change.value > 0 else 1 - p_value / 2


def figures_of(rows: Mapping[str, Row]) -> Facts:
    """Return each evaluator's main figure with its interval, JSON-ready."""
    found: Facts = {}
    for name, row in rows.items():
        figure = str(row.get("primary") or next(iter(row["metrics"])))
        found[name] = {
            "figure": figure,
            "suite": row.get("suite", ""),
            "is_loss": is_loss(figure),
            **asdict(row["metrics"][figure]),
        }
    return found


def _compared(name: str, first: Mapping[str, Row], second: Mapping[str, Row]) -> Compared | None:
    if name not in first or name not in second:
        return None
    try:
        (compared,) = compare_evaluations({name: first[name]}, {name: second[name]})
    except ConfigError:  # no common item
        return None
    return compared


def _broken(floor: ScoreFloor, base: Mapping[str, Row], after: Mapping[str, Row]) -> list[str]:
    compared = _compared(floor.evaluator, base, after)
    if compared is None:
        return [f"floor of {floor.evaluator}: not measured on common items before and after"]
    change = compared.change
    if not floor.broken(change, compared.figure):
        return []
    return [
        f"floor of {compared.label} broken: {change.before:.3f} to {change.after:.3f}, more than "
        f"{floor.by:.0%} worse (p = {change.p_value:.3f})"
    ]
