"""What is done about a general score that drops: stop, or not call a checkpoint the best."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from dataset_builders.storage import replace_text
from evaluators.evaluator import EvalResult
from evaluators.results.evaluations import BEST_FILE, evaluation_of
from evaluators.stats.paired import LOWER_IS_BETTER, Change
from evaluators.training.baseline import Baseline

BEST_KEY = "eval_agenttuning_best_score"
"""Logged with each evaluation of the held-in figure: its value where the general score
holds, -1 elsewhere; what `metric_for_best_model` can name."""


@dataclass(frozen=True, slots=True)
class ScoreFloor:
    """How much of a general score may be lost against step 0.

    Attributes:
        evaluator: Name of the evaluator, such as "general" or "mmlu".
        by: Loss that is borne, as a share of the score at step 0.
        p: The loss has to be significant at this level, by the paired test.
    """

    evaluator: str = "general"
    by: float = 0.05
    p: float = 0.05

    def broken(self, change: Change, figure: str) -> bool:
        """Whether more than that is lost."""
        if math.isnan(change.after):
            return not math.isnan(change.before)  # It has diverged: no test can tell more.
        lost = change.value if figure in LOWER_IS_BETTER else -change.value
        return lost > self.by * abs(change.before) and change.p_value < self.p


@dataclass(slots=True)
class BestCheckpoint:
    """The step with the best held-in score among those whose general score held.

    Args:
        evaluator: Name of the held-in evaluator.
        floor: What the general score has to keep.
    """

    evaluator: str
    floor: ScoreFloor
    best: dict[str, Any] = field(default_factory=dict)

    def look(
        self, step: int, results: Mapping[str, EvalResult], changes: Mapping[str, Change]
    ) -> float | None:
        """Look at what was measured at a step.

        Args:
            step: The step.
            results: By evaluator.
            changes: Of main figures against step 0, by evaluator.

        Returns:
            The score, or -1 where the general score did not hold or the score is no number;
            None where one of the two was not measured at this step.
        """
        held_in, general = results.get(self.evaluator), results.get(self.floor.evaluator)
        if held_in is None or general is None:
            return None
        if held_in.primary not in held_in.metrics or general.primary not in general.metrics:
            return None
        value = held_in.metrics[held_in.primary].value
        change = changes.get(general.evaluator)  # none at step 0 itself
        lost = change is not None and self.floor.broken(change, general.primary)
        if lost or math.isnan(value):  # No later score would be above one that is no number.
            return -1.0
        if not self.best or value > self.best["score"]:
            self.best = {
                "step": step,
                "score": value,
                "figure": f"{held_in.evaluator}_{held_in.primary}",
                "general": general.metrics[general.primary].value,
                "general_figure": f"{general.evaluator}_{general.primary}",
                "floor": {"by": self.floor.by, "p": self.floor.p},
            }
        return value

    def restore(self, rows: Iterable[Mapping[str, Any]], changes: Baseline) -> None:
        """Look again at what an earlier life of the run measured.

        Args:
            rows: Of `evaluations.jsonl`, those of a step together.
            changes: Tells the change of an evaluation against step 0.
        """
        self.best = {}
        for step, found in groupby(rows, key=lambda row: int(row["step"])):
            results = {row["evaluator"]: evaluation_of(row) for row in found}
            known = {n: c for n, r in results.items() if (c := changes.change(r))}
            self.look(step, results, known)

    def save(self, folder: Path) -> None:
        """Write `best.json`, if there is a best step."""
        if self.best:
            folder.mkdir(parents=True, exist_ok=True)
            replace_text(folder / BEST_FILE, json.dumps(self.best, indent=1) + "\n")
