"""The end of an Axolotl run, and a recipe's mix without a run."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from agenttuning_plugin.cli import main as cli
from agenttuning_plugin.reports.run_end import SUMMARY, next_commands, print_run_end
from tests.support.source_files import write_chats

pytestmark = pytest.mark.usefixtures("axolotl_process")


@pytest.fixture
def make_recipe(tmp_path: Path, tiny_model_dir: Path) -> Callable[..., Path]:
    def make(**keys: Any) -> Path:
        recipe = {
            "base_model": str(tiny_model_dir),
            "plugins": ["agenttuning_plugin.AgentTuningPlugin"],
            "agenttuning": {
                "eta": 0.25,
                "agent": write_chats(tmp_path / "agent.jsonl", "Action:", 9),
                "general": write_chats(tmp_path / "chat.jsonl", "It is", 24),
                "holdout": 4,
                "evaluators": [{"type": "general_loss"}],
            },
            "sequence_len": 256,
            "max_steps": 3,
            "micro_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "learning_rate": 1e-3,
            "output_dir": str(tmp_path / "out"),
            "dataset_prepared_path": str(tmp_path / "prepared"),
            **dict.fromkeys(("bf16", "fp16", "tf32"), False),
            "save_safetensors": True,
            "logging_steps": 1,
            **keys,
        }
        place = tmp_path / "recipe.yaml"
        place.write_text(yaml.safe_dump(recipe), "utf-8")
        return place

    return make


def test_a_run_ends_with_its_table_once(
    make_recipe: Callable[..., Path],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from axolotl.cli.train import do_cli

    monkeypatch.setattr(sys, "argv", ["train.py"])
    place = make_recipe()
    do_cli(config=str(place))
    out = capfd.readouterr().out
    assert out.count("general loss (4)") == 1
    assert "base" in out
    folder = place.with_name("out")
    lines = [line.split(":", 1)[1].strip() for line in out.splitlines() if "agenttuning " in line]
    assert f"agenttuning compare {folder}" in lines
    assert f"agenttuning evaluate --model {folder} --suite all" in lines


def test_only_the_first_process_prints(
    make_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from axolotl.cli.config import load_cfg

    cfg = load_cfg(str(make_recipe()))

    def printed() -> str:
        console = Console(file=io.StringIO(), width=200)
        print_run_end(cfg, console)
        return str(console.file.getvalue())  # type: ignore[attr-defined]

    assert "agenttuning chat" in printed()
    monkeypatch.setenv("RANK", "1")
    assert printed() == ""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv(SUMMARY, "0")
    assert printed() == ""


def test_an_adapter_may_be_merged(make_recipe: Callable[..., Path], tmp_path: Path) -> None:
    from axolotl.cli.config import load_cfg

    cfg = load_cfg(str(make_recipe()))
    assert not [line for line in next_commands(cfg) if "agenttuning merge" in line]
    cfg.adapter = "lora"
    (line,) = [line for line in next_commands(cfg) if "agenttuning merge" in line]
    assert line.endswith(f"agenttuning merge {tmp_path / 'out'}")


@pytest.mark.parametrize("packed", [False, True])
def test_build_makes_the_rows_of_the_recipes_run(
    make_recipe: Callable[..., Path],
    load: Callable[[Path], tuple[Any, Any]],
    packed: bool,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    from datasets import load_from_disk

    place = make_recipe(sample_packing=packed, attn_implementation="sdpa", seed=5)
    folder = tmp_path / "built"
    monkeypatch.setattr(
        sys, "argv", ["agenttuning", "build", "--recipe", str(place), "--out", str(folder)]
    )
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code, capfd.readouterr().err
    _, data = load(place)
    built = load_from_disk(str(folder))
    for name in ("input_ids", "labels"):
        theirs = [list(row[name]) for row in data.train_dataset]
        assert [list(row[name]) for row in built] == theirs
    report = json.loads((tmp_path / "out/agenttuning_report.json").read_text("utf-8"))
    mine = json.loads((folder / "report.json").read_text("utf-8"))
    assert mine["manifest"] == report["manifest"]


def test_a_recipe_says_everything(
    make_recipe: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def error(*arguments: str) -> str:
        given = ["agenttuning", "build", "--out", str(tmp_path / "built"), *arguments]
        monkeypatch.setattr(sys, "argv", given)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 1
        return capfd.readouterr().err

    place = str(make_recipe())
    assert "--eta: found with --recipe" in error("--recipe", place, "--eta", "0.5")
    assert "--num-examples: missing" in error("--agent", "x.jsonl")
    wrong = str(make_recipe(min_sample_len=3, train_on_eos="all"))
    assert "min_sample_len: found 3" in error("--recipe", wrong)
