"""A recipe whose general data the base model writes, through Axolotl, TRL, `build` and `check`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataset_builders.manifest.store import read_manifest
from tests.support.axolotl_fixtures import NO_FUSED_LORA, NO_GPU
from tests.support.source_files import write_sides

NUM_PROMPTS = 8


@pytest.fixture
def section(tmp_path: Path) -> dict[str, Any]:
    sides = write_sides(tmp_path, agent=8, general=NUM_PROMPTS)
    replay = {
        "prompts": sides["general"],
        "max_new_tokens": 6,
        "temperature": 1.0,
        "filters": ["empty"],
    }
    return {"eta": 0.5, "agent": sides["agent"], "general": {"self_replay": replay}, "holdout": 1}


@pytest.fixture
def recipe(section: dict[str, Any], tiny_model_dir: Path, tmp_path: Path) -> Path:
    keys = {
        "base_model": str(tiny_model_dir),
        "plugins": ["agenttuning_plugin.AgentTuningPlugin"],
        "agenttuning": section,
        "dataset_prepared_path": str(tmp_path / "prepared"),
        "output_dir": str(tmp_path / "out"),
        "sequence_len": 96,
        "max_steps": 2,
        "micro_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-3,
        "optimizer": "adamw_torch",
        "lr_scheduler": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        **NO_GPU,
        **NO_FUSED_LORA,
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in keys.items() if v is not None}), "utf-8")
    return path


def check_recorded(folder: Path, prepared: Path) -> None:
    """The manifest has how the source was made, and the loss is on what the model wrote."""
    (made,) = prepared.glob("agenttuning/made/*/self_replay")
    (source,) = read_manifest(folder).content["general"]["sources"]
    assert source["made"] == json.loads((made / "made/provenance.json").read_text("utf-8"))
    assert source["made"]["kind"] == "self_replay"
    lines = (made / "data/train.jsonl").read_text("utf-8").splitlines()
    assert source["records"] == len(lines) > 1


def test_axolotl_checks_makes_and_trains(
    recipe: Path, tmp_path: Path, axolotl_process: None, run: Callable[..., tuple[int, str, str]]
) -> None:
    pytest.importorskip("axolotl", reason="pip install 'agenttuning-plugin[axolotl]'")
    from agenttuning_plugin.preflight.check import recipe_report

    report = recipe_report(recipe)
    assert not report.of("error")
    assert report.facts["made"][0]["requests"] == NUM_PROMPTS
    assert not list((tmp_path / "prepared").glob("agenttuning/made/*"))

    code, _, error = run("build", "--recipe", recipe, "--out", tmp_path / "mix")
    assert code == 0, error
    check_recorded(tmp_path / "mix", tmp_path / "prepared")
    (made,) = (tmp_path / "prepared").glob("agenttuning/made/*/self_replay/made/provenance.json")
    first = made.stat().st_mtime_ns

    from axolotl.cli.train import do_cli

    do_cli(str(recipe))
    check_recorded(tmp_path / "out", tmp_path / "prepared")
    assert made.stat().st_mtime_ns == first
    assert (tmp_path / "out/model.safetensors").is_file()


def test_trl_makes_and_trains(
    section: dict[str, Any], tiny_model_dir: Path, tmp_path: Path, one_thread: None
) -> None:
    trl = pytest.importorskip("trl", reason="pip install 'agenttuning-plugin[trl]'")
    from transformers import AutoTokenizer

    from agenttuning_plugin import AgentTuningConfig, TrainingRun, sft_defaults
    from tests.support.trainer_settings import checkpointing

    args = trl.SFTConfig(
        output_dir=str(tmp_path / "out"),
        max_steps=2,
        per_device_train_batch_size=2,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        **checkpointing(trl.SFTConfig, False),
        **sft_defaults(packing=False),
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    config, cache = AgentTuningConfig(**section), tmp_path / "prepared"
    training = TrainingRun(config, tokenizer, args, max_length=96, cache=cache)
    trainer = trl.SFTTrainer(
        str(tiny_model_dir), args, processing_class=tokenizer, train_dataset=training.train_dataset
    )
    training.attach(trainer)
    assert math.isfinite(trainer.train().training_loss)
    check_recorded(tmp_path / "out", cache)
