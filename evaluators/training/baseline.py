"""Baseline: the evaluations at step 0, to which later ones are compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from evaluators.evaluator import EvalResult
from evaluators.stats.paired import Change, paired_change


@dataclass(slots=True)
class Baseline:
    """Records of step 0 by evaluator, without their transcripts."""

    _records: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, result: EvalResult) -> None:
        """Store an evaluation of step 0."""
        self._records[result.evaluator] = [
            {key: value for key, value in record.items() if key != "messages"}
            for record in result.records
        ]

    def read(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Load the rows of step 0 of a previous run in this folder."""
        for row in rows:
            if row["step"] == 0 and row.get("records"):
                self._records[row["evaluator"]] = list(row["records"])

    def knows(self, evaluator: str) -> bool:
        """Whether an evaluator measured something at step 0."""
        return bool(self._records.get(evaluator))

    def change(self, result: EvalResult) -> Change | None:
        """Return the change of the main figure since step 0; None without common tasks."""
        before = self._records.get(result.evaluator)
        if not before or result.primary not in result.metrics:
            return None
        try:
            return paired_change(before, result.records, result.primary, macro=result.macro)
        except ValueError:
            return None
