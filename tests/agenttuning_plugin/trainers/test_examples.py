"""The examples work as their pages say: every command runs, on a tiny model."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from agenttuning_plugin.cli.main import app
from evaluators.results.evaluations import read_evaluations

ROOT = Path(__file__).resolve().parents[3]
DESK = ROOT / "examples/support_desk"
REFERENCE = "./support_desk.py:SupportDesk"


def agenttuning(*arguments: str) -> str:
    """Run a command, which has to succeed; returns what it printed."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, (arguments, result.output)
    return result.stdout


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the example, as the working folder."""
    folder = tmp_path / "support_desk"
    shutil.copytree(DESK, folder, ignore=shutil.ignore_patterns("__pycache__", "collected", "out*"))
    monkeypatch.chdir(folder)
    return folder


def tiny_recipe(folder: Path, model: Path, name: str = "smollm2") -> Path:
    """A recipe for two steps of a tiny model, and with little to measure."""
    recipe = yaml.safe_load((folder / f"{name}.yaml").read_text("utf-8"))
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"{i}?"},
                {"role": "assistant", "content": "No."},
            ]
        }
        for i in range(24)
    ]
    general = folder / "chat.jsonl"
    general.write_text("".join(json.dumps(row) + "\n" for row in chats), "utf-8")
    recipe["agenttuning"] |= {"general": str(general), "holdout": 4}
    recipe["agenttuning"]["evaluators"][0] |= {"num_tasks": 4, "max_new_tokens": 8}
    recipe |= {"base_model": str(model), "max_steps": 2, "sequence_len": 4096}
    recipe |= {"output_dir": str(folder / "out"), "dataset_prepared_path": str(folder / "prepared")}
    recipe |= {"save_safetensors": True, "logging_steps": 1}
    place = folder / "tiny.yaml"
    place.write_text(yaml.safe_dump(recipe), "utf-8")
    return place


@pytest.mark.usefixtures("axolotl_process")
def test_the_support_desk_from_its_tasks_to_a_tuned_model(
    desk: Path,
    tiny_model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from axolotl.cli.train import do_cli

    validated = agenttuning("env", "validate", REFERENCE, "--num-tasks", "26", "--json")
    assert json.loads(validated)["support_desk"]["ok"]
    agenttuning(
        "collect", "--env", REFERENCE, "--oracle", "--num-tasks", "26", "--out", "collected"
    )
    rows = (desk / "collected/messages/support_desk.jsonl").read_text("utf-8").splitlines()
    assert len(rows) == 26
    assert all(json.loads(row)["tools"] for row in rows)

    recipe = tiny_recipe(desk, tiny_model_dir)
    agenttuning("check", str(recipe))
    monkeypatch.setattr(sys, "argv", ["train.py"])
    do_cli(config=str(recipe))
    measured = [(row["evaluator"], row["step"]) for row in read_evaluations(desk / "out")]
    assert [each for each in measured if each[0] == "support_desk"] == [
        ("support_desk", 0),
        ("support_desk", 2),
    ]
    agenttuning("view", "out")
    assert list(desk.glob("out/**/*.html"))


@pytest.mark.usefixtures("axolotl_process")
def test_the_recipe_for_a_gpu_passes_the_check(desk: Path, tiny_model_dir: Path) -> None:
    agenttuning("collect", "--env", REFERENCE, "--oracle", "--num-tasks", "5", "--out", "collected")
    recipe = tiny_recipe(desk, tiny_model_dir, "recipe")
    settings = yaml.safe_load(recipe.read_text("utf-8"))
    # What Qwen's own template does, and what needs a GPU.
    settings["agenttuning"]["chat_template"] = "chatml-tools"
    del settings["load_in_4bit"]
    recipe.write_text(yaml.safe_dump(settings | {"adapter": "lora", "bf16": False}), "utf-8")
    assert "ok  evaluator" in agenttuning("check", str(recipe))
