"""Sweeps through Axolotl's own command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("axolotl", reason="pip install 'agenttuning-plugin[axolotl]'")

from evaluators.results.evaluations import read_evaluations

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.slow


def sweep(recipe: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agenttuning_plugin", "sweep", str(recipe), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_arms_train_once_and_are_read_as_runs(
    tiny_model_dir: Path, write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    recipe, out = write_recipe(tiny_model_dir), tmp_path / "sweep"
    arguments = ("--set", "agenttuning.eta=0,0.5", "--out", str(out), "--threads", "1")
    done = sweep(recipe, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    facts: dict[str, Any] = json.loads((out / "sweep.json").read_text("utf-8"))
    names = [arm["name"] for arm in facts["arms"]]
    assert names == ["eta-0_seed-7", "eta-0.5_seed-7"]
    steps = {name: [row["step"] for row in read_evaluations(out / name)] for name in names}
    assert steps == {name: [0, 3] for name in names}
    written = {name: (out / name / "finished.json").read_bytes() for name in names}

    again = sweep(recipe, *arguments, "--json")
    assert json.loads(again.stdout)["finished"] == names
    assert {n: (out / n / "finished.json").read_bytes() for n in names} == written

    text = recipe.read_text("utf-8").replace("max_steps: 3", "max_steps: 4")
    recipe.write_text(text, "utf-8")
    refused = sweep(recipe, *arguments)
    assert refused.returncode == 1
    assert "max_steps was 3, is 4" in refused.stderr
