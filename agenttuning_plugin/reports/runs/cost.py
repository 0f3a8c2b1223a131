"""Realised eta, trained tokens, steps and seconds of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agenttuning_plugin.reports.model_record import read_model_record

UNITS = ("examples", "tokens", "trained_tokens")
_REPORT = "agenttuning_report.json"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run was trained on, and what it took; NaN where it is not recorded.

    Attributes:
        eta: Realised share of agent data, by unit.
        trained_tokens: Tokens that the loss covers, of all steps.
        tokens: Tokens of all steps.
        steps: Optimizer steps.
        seconds: Seconds of training, without evaluations; of a resumed run since it was resumed.
        evaluation_seconds: Seconds of the evaluations, that of the base included.
    """

    eta: Mapping[str, float]
    trained_tokens: float
    tokens: float
    steps: float
    seconds: float
    evaluation_seconds: float


def read_cost(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Cost:
    """Return the cost of a run.

    Args:
        folder: Its output folder.
        rows: Its evaluations, from `read_evaluations`.
    """
    mix = _mix(folder)
    training = read_model_record(folder).get("training") or {}
    first = training.get("first_step", 0)
    during = math.fsum(row.get("seconds", 0.0) for row in rows if row["step"] > first)
    whole = float(training.get("seconds", math.nan))
    return Cost(
        {unit: float(mix.get(f"share_of_{unit}", math.nan)) for unit in UNITS},
        float(mix.get("trained_tokens", math.nan)),
        float(mix.get("tokens", math.nan)),
        float(training.get("steps", max((row["step"] for row in rows), default=0) or math.nan)),
        max(whole - during, 0.0),  # NaN stays NaN in this order
        math.fsum(row.get("seconds", 0.0) for row in rows),
    )


def mean_of(values: Sequence[float]) -> float:
    """Return the mean of what is recorded; NaN if nothing is."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _mix(folder: Path) -> dict[str, Any]:
    """Return the report's part on the mix; empty if the file is missing or damaged."""
    try:
        content = json.loads((folder / _REPORT).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    found = content.get("mix") if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}
