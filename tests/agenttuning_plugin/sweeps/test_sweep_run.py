"""Sweeps through Axolotl's own command."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("axolotl", reason="pip install 'agenttuning-plugin[axolotl]'")

from agenttuning_plugin.sweeps.checkpoints import last_checkpoint
from agenttuning_plugin.sweeps.state import is_finished, locked
from evaluators.results.evaluations import read_evaluations

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.slow

STEPS = 300


def command_of(recipe: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "agenttuning_plugin", "sweep", str(recipe), *arguments]


def sweep(recipe: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_of(recipe, *arguments), cwd=ROOT, capture_output=True, text=True, check=False
    )


def wait_for(condition: Callable[[], object], seconds: float = 900) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.1)


def last_step(arm: Path) -> int:
    """Step of an arm's last whole checkpoint, or 0."""
    found = last_checkpoint(arm)
    return 0 if found is None else int(found.name[11:])


def has_saved_after(arm: Path, step: int) -> bool:
    return last_step(arm) > step


def is_free(arm: Path) -> bool:
    """Whether no process trains an arm, nor Axolotl's beneath it."""
    with locked(arm.parent, arm.name) as held:
        return held and not any(map(partial(trains, arm), Path("/proc").glob("[0-9]*/cmdline")))


def trains(arm: Path, process: Path) -> bool:
    try:
        line = process.read_bytes().decode()
    except OSError:  # It has just ended.
        return False
    return str(arm) in line and "axolotl" in line


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
    rows = {name: read_evaluations(out / name) for name in names}
    steps = {name: [row["step"] for row in rows[name]] for name in names}
    assert steps == {name: [0, 3] for name in names}
    (base,) = read_evaluations(out / "base")  # The holdout is the same, so it is measured once.
    assert [rows[name][0]["records"] for name in names] == [base["records"]] * 2
    assert (
        len(list((out / "prepared/agenttuning").glob("*.lock"))) == 2
    )  # eta 0 reads no agent data
    written = {name: (out / name / "finished.json").read_bytes() for name in names}

    again = sweep(recipe, *arguments, "--json")
    assert json.loads(again.stdout)["finished"] == names
    assert {n: (out / n / "finished.json").read_bytes() for n in names} == written

    text = recipe.read_text("utf-8").replace("max_steps: 3", "max_steps: 4")
    recipe.write_text(text, "utf-8")
    refused = sweep(recipe, *arguments)
    assert refused.returncode == 1
    assert "max_steps was 3, is 4" in refused.stderr


def test_a_killed_sweep_ends_its_arm_and_is_resumed_from_its_checkpoint(
    tiny_model_dir: Path, write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    out, missing = tmp_path / "sweep", str(tmp_path / "missing.jsonl")
    recipe = write_recipe(
        tiny_model_dir,
        {"evaluators": []},
        max_steps=STEPS,
        save_strategy="steps",
        save_steps=20,
        save_total_limit=2,
        sweep={
            "set": {"agenttuning.eta": [0.5]},
            "arms": {"broken": {"agenttuning.agent": missing}},
        },
    )
    arguments, arm = ("--out", str(out), "--threads", "1"), out / "eta-0.5_seed-7"
    for number, expected in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 130)):
        before = last_step(arm)
        process = subprocess.Popen(command_of(recipe, *arguments), cwd=ROOT)
        try:
            wait_for(partial(has_saved_after, arm, before))
            process.send_signal(number)
            assert process.wait(60) == expected
        finally:
            process.kill()
        wait_for(partial(is_free, arm), 60)
        assert not is_finished(arm)
    done = sweep(recipe, *arguments)
    assert done.returncode == 1
    assert "broken_seed-7: failed with exit status 1: error: " in done.stdout
    assert "failed: broken_seed-7; " in done.stdout
    assert is_finished(arm), done.stdout
    log = (arm / "train.log").read_text("utf-8", "replace")
    assert log.count("--resume_from_checkpoint=") == 2
    record = json.loads((arm / "agenttuning_model.json").read_text("utf-8"))["training"]
    assert record["steps"] == STEPS
    assert record["first_step"] > before


def test_a_swept_key_that_axolotl_would_drop_is_refused(
    tiny_model_dir: Path, write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = write_recipe(tiny_model_dir)
    refused = sweep(recipe, "--set", "warm_up=1,2", "--out", str(tmp_path / "out"))
    assert refused.returncode == 1
    assert "swept keys: warm_up: unknown key, which Axolotl would drop" in refused.stderr
    assert not (tmp_path / "out").exists()
