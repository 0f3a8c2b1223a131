"""Write every item's scores of a sweep's runs to a result file, from which the tables are made.

    python -m benchmarks.study_items outputs/study-eta-sweep study_eta_items.json
    python -m benchmarks.study_items outputs/study-methods-sweep study_methods_items.json

The folders of the runs are large and stay where they were trained; `study_tables` needs this file
alone. Runs without results are listed in it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agenttuning_plugin.reports.model_record import json_object
from agenttuning_plugin.reports.runs.read import Run, Runs, read_runs

RESULTS = Path(__file__).parent / "results"
FIGURES = {
    "database": ("success",),
    "actions": ("action_match", "turn_logprob"),
    "general": ("loss",),
    "general_kl": ("kl",),
    "refusal": ("refusal_harmful", "compliance_harmless"),
}
"""Figures that are kept, by evaluator."""


def scores_of(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return score by evaluator, figure and item."""
    return {
        evaluator: {
            figure: {
                str(record["item"]): round(float(record["scores"][figure]), 6)
                for record in rows[evaluator]["records"]
                if figure in record["scores"]
            }
            for figure in figures
        }
        for evaluator, figures in FIGURES.items()
        if evaluator in rows
    }


def weights_of(runs: Runs) -> dict[str, dict[str, float]]:
    """Return the weight of each item, by evaluator, where items count unequally."""
    rows = runs.runs[0].end.items()
    found = {
        evaluator: {str(r["item"]): r["weight"] for r in row["records"] if "weight" in r}
        for evaluator, row in rows
    }
    return {evaluator: weights for evaluator, weights in found.items() if weights}


def run_entry(run: Run) -> dict[str, Any]:
    """Return a run's arm, seed, versions, cost and scores."""
    return {
        "arm": run.group,
        "seed": run.seed,
        "versions": json_object(run.folder / "finished.json")["versions"],
        "cost": asdict(run.cost),
        "scores": scores_of(run.end),
    }


def main() -> None:
    """Write the result file and say what is missing."""
    folder, name = Path(sys.argv[1]), sys.argv[2]
    found = read_runs([folder])
    result = {
        "weights": weights_of(found),
        "base": scores_of(found.runs[0].start),
        "runs": [run_entry(run) for run in found.runs],
        "without_results": found.without,
    }
    text = json.dumps(result, separators=(",", ":"), allow_nan=False)
    (RESULTS / name).write_text(text.replace('{"arm"', '\n{"arm"') + "\n", "utf-8")
    print(f"{name}: {len(found.runs)} runs, {len(found.without)} without results", file=sys.stderr)


if __name__ == "__main__":
    main()
