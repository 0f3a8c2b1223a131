"""Write the result of the study's rounds, beside as many steps of plain training.

    python -m benchmarks.study_rounds outputs/rounds-rounds outputs/control

The first folder is that of `agenttuning rounds`, the second of the run without rounds; the
commands are in docs/studies/eta-tables.md. Writes benchmarks/results/study_rounds.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agenttuning_plugin.reports.model_record import json_object
from agenttuning_plugin.reports.runs.read import Run, read_runs
from benchmarks.study_items import RESULTS
from evaluators.stats.paired import paired_change

NOTE = (
    "agenttuning rounds on recipes/demo.yaml with max_steps 54 and bf16 true; --rounds 2 --from "
    "last --num-tasks 128 --attempts 3 --temperature 1 --eval-tasks 128"
)
CONTROL_NOTE = (
    "the same recipe with max_steps 162, the steps of start and two rounds, and its own agent data "
    "alone"
)
MEAN = ("value", "low", "high", "n")
CHANGE = ("before", "value", "low", "high", "p_value", "n")


def figures_of(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return each evaluator's figure with its interval."""
    return {name: {key: value[key] for key in ("figure", *MEAN)} for name, value in figures.items()}


def round_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a round collected, its figures, and the test that accepted it."""
    collected, decided = state["collect"], state["decide"]
    keys = ("evaluator", "figure", "before", "after", *CHANGE[1:])
    return {
        "collect": {key: collected[key] for key in ("tasks", "attempts", "kept")},
        "new": state["select"]["new"],
        "rows": state["select"]["rows"],
        "figures": figures_of(state["train"]["figures"]),
        "accepted": decided["accepted"],
        "p_value": decided["p_value"],
        "changes": [{key: change[key] for key in keys} for change in decided["changes"]],
    }


def control_of(control: Run, last: Run) -> dict[str, Any]:
    """Return the figures of the run without rounds, and its differences from the last round."""
    figures, changes = {}, []
    for name, row in control.end.items():
        score = row["primary"]
        mean = row["metrics"][score]
        figures[name] = {"figure": score} | {key: getattr(mean, key) for key in MEAN}
        change = paired_change(last.end[name]["records"], row["records"], score, macro=row["macro"])
        values = {key: getattr(change, key) for key in CHANGE}
        changes.append({"evaluator": name, "figure": score, **values})
    return {"note": CONTROL_NOTE, "figures": figures, "changes": changes}


def main() -> None:
    """Write the result file."""
    rounds, control = map(Path, sys.argv[1:3])
    state = json_object(rounds / "state.json")
    start = state["start"]["measure"]
    last = rounds / f"round-{len(state['rounds'])}/model"
    result = {
        "note": NOTE,
        "base": figures_of(start["base_figures"]),
        "start": figures_of(start["figures"]),
        "rounds": [round_of(each) for each in state["rounds"]],
        "control": control_of(*(read_runs([folder]).runs[0] for folder in (control, last))),
    }
    text = json.dumps(result, indent=1, allow_nan=False)
    (RESULTS / "study_rounds.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
