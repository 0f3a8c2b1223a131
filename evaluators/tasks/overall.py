"""The paper's Overall scores: weighted means of task scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from evaluators.evaluator import EvalResult
from evaluators.tasks.registry import BENCHMARKS, SUITES


@dataclass(frozen=True, slots=True)
class Weight:
    """Constant by which a task's score is divided (paper, section 3.1, "Overall").

    All are solved from the eight models' task scores and Overalls in its main table, which have one
    and two decimals, so neighbouring integers fit about as well.

    Attributes:
        value: In the unit of the task's score: percent, for MT-Bench points.
        certainty: "recalled": the fit agrees with our recollection of the paper's text, which was
            not available. "fitted": only the fit.
    """

    value: float
    certainty: str


WEIGHTS: dict[str, Weight] = {
    "alfworld": Weight(20, "recalled"),
    "webshop": Weight(28, "recalled"),
    "mind2web": Weight(9, "recalled"),
    "knowledge_graph": Weight(16, "recalled"),
    "os": Weight(19, "recalled"),
    "database": Weight(12, "recalled"),
    "science_world": Weight(14, "fitted"),
    "miniwob": Weight(31, "fitted"),
    "web_arena": Weight(3, "fitted"),
    "hotpot_qa": Weight(37, "fitted"),
    "rewoo": Weight(60, "fitted"),
    "card_game": Weight(16, "fitted"),
    "mmlu": Weight(59, "fitted"),
    "human_eval": Weight(35, "fitted"),
    "gsm8k": Weight(54, "fitted"),
    "mt_bench": Weight(8, "fitted"),
}


def overall(scores: Mapping[str, float], suite: str) -> float | None:
    """Compute a suite's Overall.

    Args:
        scores: By benchmark, in the paper's unit: percent, for MT-Bench points.
        suite: "held-in", "held-out" or "general".

    Returns:
        The mean of score over weight; None if a task of the suite has no score, since a mean over
        fewer tasks is not comparable.
    """
    names = [benchmark.name for benchmark in BENCHMARKS if benchmark.suite == suite]
    if not names or any(name not in scores for name in names):
        return None
    return math.fsum(scores[name] / WEIGHTS[name].value for name in names) / len(names)


def overall_key(suite: str) -> str:
    """Return the key of a suite's Overall in logs."""
    return f"eval_{suite.replace('-', '_')}_overall"


def overalls(results: Mapping[str, EvalResult]) -> dict[str, float]:
    """Return the Overall of every completely measured suite, by suite.

    Args:
        results: By evaluator.
    """
    scores = {
        benchmark.name: result.metrics[result.primary].value * benchmark.scale
        for benchmark in BENCHMARKS
        if (result := results.get(benchmark.name)) and result.primary in result.metrics
    }
    found = {suite: overall(scores, suite) for suite in SUITES}
    return {suite: value for suite, value in found.items() if value is not None}


def overall_figures(results: Mapping[str, EvalResult]) -> dict[str, float]:
    """Return `overalls` as log entries, such as `eval_held_in_overall`."""
    return {overall_key(suite): value for suite, value in overalls(results).items()}
