"""The paper's Overall scores: means of scores over fixed weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from evaluators.suites import BENCHMARKS


@dataclass(frozen=True, slots=True)
class Weight:
    """The constant by which a task's score is divided (paper, section 3.1, "Overall").

    The paper gives none. They are solved from the eight models' task scores and Overalls of
    its main table.

    Attributes:
        value: In the unit of the task's score: percent, for MT-Bench points.
        certainty: "unique": the only integers that fit. "fitted": integers that fit, others
            fit nearly as well.
    """

    value: float
    certainty: str


WEIGHTS: dict[str, Weight] = {
    "alfworld": Weight(20, "unique"),
    "webshop": Weight(28, "unique"),
    "mind2web": Weight(9, "unique"),
    "knowledge_graph": Weight(16, "unique"),
    "os": Weight(19, "unique"),
    "database": Weight(12, "unique"),
    "science_world": Weight(14, "fitted"),
    "miniwob": Weight(31, "fitted"),
    "web_arena": Weight(3, "fitted"),
    "hotpot_qa": Weight(37, "fitted"),
    "rewoo": Weight(60, "fitted"),
    "card_game": Weight(16, "fitted"),
    "mmlu": Weight(58, "fitted"),
    "human_eval": Weight(35, "fitted"),
    "gsm8k": Weight(54, "fitted"),
    "mt_bench": Weight(8, "fitted"),
}


def overall(scores: Mapping[str, float], suite: str) -> float | None:
    """The Overall of a suite.

    Args:
        scores: By benchmark, in the paper's unit: percent, for MT-Bench points.
        suite: "held-in", "held-out" or "general".

    Returns:
        The mean of score over weight; None where a task of the suite has no score, for a
        mean over fewer tasks is another figure.
    """
    names = [benchmark.name for benchmark in BENCHMARKS if benchmark.suite == suite]
    if not names or any(name not in scores for name in names):
        return None
    return math.fsum(scores[name] / WEIGHTS[name].value for name in names) / len(names)
