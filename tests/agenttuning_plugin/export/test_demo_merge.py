"""The demo's adapter and its merged model give the same dialogues."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("peft", reason="pip install 'agenttuning-plugin[trl]'")

from agenttuning_plugin.config.evaluation_run import EvaluationRun
from agenttuning_plugin.evaluation.measure import measure
from agenttuning_plugin.export.merge import merge_run
from evaluators.tasks.registry import SuiteSettings

REPO = Path(__file__).resolve().parents[3]
DEMO = Path(os.environ.get("AGENTTUNING_DEMO_OUTPUT") or REPO / "outputs/demo")


def scored(model: Path, out: Path) -> tuple[Any, dict[str, Any]]:
    """Figures and dialogues of eight database tasks."""
    tasks = SuiteSettings(max_new_tokens=80)
    panel = measure(
        EvaluationRun(str(model), suites=("database",), tasks=tasks, limit=8, out=str(out))
    )
    lines = (out / "transcripts/database.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    dialogues = {row["item"]: row["messages"] for row in rows if "item" in row}
    return panel.results["database"].metrics, dialogues


@pytest.mark.slow
def test_the_demos_merged_model_is_scored_as_its_adapter(tmp_path: Path) -> None:
    if not (DEMO / "adapter_config.json").is_file():
        pytest.skip(f"no adapter of the demo: {DEMO} is absent (make demo)")
    report = merge_run(DEMO, tmp_path / "merged", dtype="float32", device="cpu")
    assert report.parity is not None
    assert report.parity.same_token == 1.0
    first, second = scored(DEMO, tmp_path / "a"), scored(report.out, tmp_path / "b")
    assert first == second
    assert first[0]["success"].value > 0.5
