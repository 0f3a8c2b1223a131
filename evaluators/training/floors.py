"""Rules on a dropping general score: stop training, or exclude a checkpoint from the best."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import Field

from dataset_builders.settings import settings
from dataset_builders.storage import replace_text
from evaluators.evaluator import EvalResult
from evaluators.results.evaluations import BEST_FILE, evaluation_of
from evaluators.stats.paired import Change, is_loss
from evaluators.training.baseline import Baseline

BEST_KEY = "eval_agenttuning_best_score"
"""Key logged with each evaluation of the held-in figure: its value if the general score is above
its floor, else -1; usable as `metric_for_best_model`."""


@settings
class ScoreFloor:
    """Largest tolerated drop of a general score since step 0."""

    evaluator: str = Field(
        default="general",
        description="Evaluator of the general score: `general` for the loss, or `mmlu`.",
    )
    by: float = Field(
        default=0.05,
        ge=0,
        description="Largest tolerated drop, as a fraction of the base model's score.",
    )
    p: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Significance level of the drop, by the paired test.",
    )

    def broken(self, change: Change, figure: str) -> bool:
        """Whether the score dropped by more than that."""
        if math.isnan(change.after):
            return not math.isnan(change.before)  # The model has diverged: no test is needed.
        lost = change.value if is_loss(figure) else -change.value
        return lost > self.by * abs(change.before) and change.p_value < self.p


@settings
class BestCheckpoint:
    """How the best step is chosen: by a held-in score, under a floor on a general score."""

    evaluator: str = Field(
        default="database", description="Evaluator whose main figure is maximised."
    )
    floor: ScoreFloor = Field(
        default_factory=ScoreFloor, description="Floor that the general score must not fall below."
    )


@dataclass(slots=True)
class BestStep:
    """The best step so far.

    Attributes:
        rule: How the best step is chosen.
        best: Content of `best.json`; empty while there is none.
    """

    rule: BestCheckpoint
    best: dict[str, Any] = field(default_factory=dict)

    def update(
        self, step: int, results: Mapping[str, EvalResult], changes: Mapping[str, Change]
    ) -> float | None:
        """Update with the results of a step.

        Args:
            step: The step.
            results: By evaluator.
            changes: Of main figures against step 0, by evaluator.

        Returns:
            The score, or -1 if the general score is below its floor or the score is NaN; None if
            one of the two was not measured at this step.
        """
        held_in, general = results.get(self.rule.evaluator), results.get(self.rule.floor.evaluator)
        if held_in is None or general is None:
            return None
        if held_in.primary not in held_in.metrics or general.primary not in general.metrics:
            return None
        value = held_in.metrics[held_in.primary].value
        change = changes.get(general.evaluator)  # None at step 0 itself
        lost = change is not None and self.rule.floor.broken(change, general.primary)
        if lost or math.isnan(value):  # No later score would compare above NaN.
            return -1.0
        if not self.best or value > self.best["score"]:
            self.best = {
                "step": step,
                "score": value,
                "figure": f"{held_in.evaluator}_{held_in.primary}",
                "general": general.metrics[general.primary].value,
                "general_figure": f"{general.evaluator}_{general.primary}",
                "floor": {"by": self.rule.floor.by, "p": self.rule.floor.p},
            }
        return value

    def restore(self, rows: Iterable[Mapping[str, Any]], changes: Baseline) -> None:
        """Update with the results of a previous run in this folder.

        Args:
            rows: Of `evaluations.jsonl`, those of a step together.
            changes: Returns the change of an evaluation since step 0.
        """
        self.best = {}
        for step, found in groupby(rows, key=lambda row: int(row["step"])):
            results = {row["evaluator"]: evaluation_of(row) for row in found}
            known = {n: c for n, r in results.items() if (c := changes.change(r))}
            self.update(step, results, known)

    def save(self, folder: Path) -> None:
        """Write `best.json`, if there is a best step."""
        if self.best:
            folder.mkdir(parents=True, exist_ok=True)
            replace_text(folder / BEST_FILE, json.dumps(self.best, indent=1) + "\n")
