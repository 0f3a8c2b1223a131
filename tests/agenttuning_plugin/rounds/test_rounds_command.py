"""`agenttuning rounds`: plan, refusals, and a round through Axolotl's own command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.yes_rounds import write_rounds

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def recipe(tmp_path: Path, tiny_model_dir: Path) -> Path:
    content: dict[str, Any] = {
        "base_model": str(tiny_model_dir),
        "plugins": ["agenttuning_plugin.AgentTuningPlugin"],
        "agenttuning": write_rounds(tmp_path),
        "sequence_len": 64,
        "max_steps": 30,
        "micro_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-2,
        "optimizer": "adamw_torch",
        "output_dir": str(tmp_path / "run"),
        **dict.fromkeys(("bf16", "fp16", "tf32", "gradient_checkpointing"), False),
        "save_strategy": "no",
        "seed": 1,
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_dry_run_prints_the_plan_and_makes_nothing(run: Run, recipe: Path) -> None:
    env = f"{recipe.parent}/agree.py:Agree"
    code, out, err = run("rounds", recipe, "--env", env, "--from", "last", "--dry-run")
    assert (code, err) == (0, "")
    assert "trained on the recipe as it is first" in out
    assert "12 training tasks of agree.py:Agree" in out
    assert "at most 48 episodes" in out
    assert "the last accepted model, merged" in out
    assert "agree on 8 tasks of split 'test'" in out
    assert f"result: {recipe.parent}/run-rounds/best" in out
    assert not (recipe.parent / "run-rounds").exists()


@pytest.mark.parametrize("wrong", [("--filter", "foo"), ("--start", "nowhere")])
@pytest.mark.parametrize("dry", [("--dry-run",), ()], ids=["dry", "real"])
def test_wrong_settings_end_before_anything_is_trained(
    run: Run, recipe: Path, wrong: tuple[str, str], dry: tuple[str, ...]
) -> None:
    env = f"{recipe.parent}/agree.py:Agree"
    code, _, err = run("rounds", recipe, "--env", env, *wrong, *dry)
    assert code == 1
    assert wrong[1] in err
    assert not (recipe.parent / "run-rounds" / "round-0" / "model").exists()


def test_rounds_start_from_a_run_that_has_ended(
    run: Run, recipe: Path, tiny_model_dir: Path
) -> None:
    output = recipe.parent / "run"
    output.mkdir()
    (output / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(tiny_model_dir)})
    )
    plan = ("rounds", recipe, "--env", f"{recipe.parent}/agree.py:Agree", "--dry-run")
    assert "is first" in run(*plan)[1]  # an interrupted run has no weights
    (output / "adapter_model.safetensors").touch()
    assert f"start: {output}\n" in run(*plan)[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--env", "database"), "--env: found 'database', expected the environment of an"),
        (("--eval-tasks", "9"), "--eval-tasks: found 9, expected at most 8 (split 'test')"),
        (("--from", "best"), "--from: found 'best', input should be 'base' or 'last'"),
        (("--data", "some"), "--data: found 'some', input should be 'add'"),
        (("--start", "nowhere"), "nowhere: no such folder; expected the output of a run"),
    ],
)
def test_what_cannot_work_is_one_line(
    run: Run, recipe: Path, options: tuple[str, ...], message: str
) -> None:
    env = f"{recipe.parent}/agree.py:Agree"
    code, _, err = run("rounds", recipe, "--env", env, *options)
    line = next(each for each in err.splitlines() if each.startswith("error:"))
    assert code == 1
    assert message in line


@pytest.mark.slow
def test_axolotl_trains_the_rounds(recipe: Path) -> None:
    pytest.importorskip("axolotl", reason="pip install 'agenttuning-plugin[axolotl]'")
    out = recipe.parent / "out"
    command = [sys.executable, "-m", "agenttuning_plugin", "rounds", str(recipe), "--json"]
    command += ["--env", f"{recipe.parent}/agree.py:Agree", "--rounds", "1", "--out", str(out)]
    command += ["--attempts", "6", "--temperature", "1", "--data", "replace", "--from", "base"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=1200, check=False, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert (found["accepted"], found["stopped"]) == (1, "")
    assert found["rounds"][0]["train"]["figures"]["agree"]["value"] == 1.0
    written = yaml.safe_load((out / "round-1/recipe.yaml").read_text("utf-8"))
    assert written["agenttuning"]["agent"] == [
        {"path": str(out / "round-1/agent.jsonl"), "format": "messages"}
    ]
    assert (out / "best").resolve() == (out / "round-1/model").resolve()
    assert (out / "best/manifest.json").is_file()


def test_the_keys_of_the_recipe_that_training_depends_on(recipe: Path) -> None:
    """All but those that each round has its own values of."""
    from agenttuning_plugin.config.shipped import read_recipe
    from agenttuning_plugin.rounds.training import AxolotlTrainer

    content = read_recipe(recipe)
    named = AxolotlTrainer(content).settings
    assert named["recipe.max_steps"] == content["max_steps"]
    assert {"recipe.agenttuning", "recipe.base_model", "recipe.output_dir"}.isdisjoint(named)
