"""Runs of both trainers leave a card and a record, and merge to a model with the same answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("trl", reason="pip install 'agenttuning-plugin[trl]'")
pytest.importorskip("peft", reason="pip install 'agenttuning-plugin[trl]'")

from agenttuning_plugin import AgentTuningConfig, TrainingRun, sft_defaults
from agenttuning_plugin.config.evaluation_run import EvaluationRun
from agenttuning_plugin.evaluation.measure import measure
from agenttuning_plugin.export.merge import merge_run
from agenttuning_plugin.reports.model_record import read_model_record
from evaluators.tasks.registry import SuiteSettings
from tests.support.source_files import write_sides
from tests.support.trainer_settings import checkpointing

NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "float32"}


def train_with_trl(base: Path, folder: Path, *, quantized: bool) -> Path:
    """Train an adapter for three steps, as recipes/trl_sft.py does."""
    import trl
    from peft import LoraConfig
    from transformers import AutoTokenizer, BitsAndBytesConfig

    args = trl.SFTConfig(
        output_dir=str(folder / "out"),
        max_steps=3,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        **checkpointing(trl.SFTConfig, False),
        **sft_defaults(),
    )
    tokenizer = AutoTokenizer.from_pretrained(base)
    sides = write_sides(folder, agent=6, general=20)
    evaluators = [{"type": "general_loss", "every": 3}]
    config = AgentTuningConfig(holdout=2, evaluators=evaluators, **sides)
    run = TrainingRun(config, tokenizer, args, max_length=96, cache=folder / "prepared")
    options = {"quantization_config": BitsAndBytesConfig(**NF4)} if quantized else {}
    trainer = trl.SFTTrainer(
        str(base),
        args,
        processing_class=tokenizer,
        train_dataset=run.train_dataset,
        data_collator=run.data_collator,
        peft_config=LoraConfig(target_modules="all-linear", r=4),
        **options,
    )
    run.attach(trainer)
    trainer.train()
    trainer.save_model()
    return folder / "out"


def dialogues(model: Path, out: Path) -> dict[str, Any]:
    """Greedy episodes of the database task, by task."""
    tasks = SuiteSettings(max_new_tokens=24)
    measure(EvaluationRun(str(model), suites=("database",), tasks=tasks, limit=3, out=str(out)))
    lines = (out / "transcripts/database.jsonl").read_text("utf-8").splitlines()
    rows = map(json.loads, lines)
    return {row["item"]: row["messages"] for row in rows if "item" in row}


def check_card(text: str, library: str) -> None:
    import huggingface_hub

    card = huggingface_hub.ModelCard(text)
    assert card.data.library_name == library
    (result,) = card.data.eval_results or []
    assert (result.dataset_name, result.metric_type) == ("general", "loss")
    for part in (
        "| agent | ",
        "| realised, in trained tokens |",
        "| general | loss |",
        "## Licences",
    ):
        assert part in text


def test_a_trl_run_and_its_merged_model_answer_alike(
    tiny_model_dir: Path, tmp_path: Path, one_thread: None
) -> None:
    run = train_with_trl(tiny_model_dir, tmp_path, quantized=False)
    check_card((run / "README.md").read_text("utf-8"), "peft")
    report = merge_run(run, device="cpu")
    assert report.parity is not None
    assert report.parity.source == "rows of the run"
    assert report.parity.rows == 8
    check_card((report.out / "README.md").read_text("utf-8"), "transformers")
    answered = dialogues(run, tmp_path / "adapter")
    assert len(answered) == 3
    assert answered == dialogues(report.out, tmp_path / "merged")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Skipping publisher trust check")
def test_a_trl_run_on_4_bits_merges_into_what_it_trained_on(
    tiny_model_dir: Path, tmp_path: Path, one_thread: None
) -> None:
    pytest.importorskip("bitsandbytes", reason="pip install 'agenttuning-plugin[axolotl]'")
    run = train_with_trl(tiny_model_dir, tmp_path, quantized=True)
    record = read_model_record(run)
    assert record["quantization"]["load_in_4bit"]
    assert record["dtype"] == "float32"
    assert record["base"]["weights"]
    report = merge_run(run, device="cpu")
    assert report.parity is not None
    assert report.parity.same_token == 1.0
    assert "quantised to 4 bits" in (report.out / "README.md").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("axolotl_process")
def test_an_axolotl_run_on_4_bits_keeps_our_card_and_merges(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from axolotl.cli.train import do_cli

    recipe = {
        "base_model": str(tiny_model_dir),
        "plugins": ["agenttuning_plugin.AgentTuningPlugin"],
        "agenttuning": {
            **write_sides(tmp_path, agent=6, general=20),
            "holdout": 2,
            "evaluators": [{"type": "general_loss"}],
        },
        "adapter": "qlora",
        "load_in_4bit": True,
        "lora_r": 4,
        "lora_alpha": 8,
        "lora_target_linear": True,
        **{f"lora_{part}_kernel": False for part in ("mlp", "qkv", "o", "embedding")},
        "sequence_len": 128,
        "max_steps": 3,
        "micro_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-2,
        "optimizer": "adamw_torch",
        "output_dir": str(tmp_path / "out"),
        "dataset_prepared_path": str(tmp_path / "prepared"),
        **dict.fromkeys(("bf16", "fp16", "tf32"), False),
        "save_strategy": "no",
        "logging_steps": 1,
    }
    place = tmp_path / "recipe.yaml"
    place.write_text(yaml.safe_dump(recipe), "utf-8")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    do_cli(config=str(place))
    run = tmp_path / "out"
    card = (run / "README.md").read_text("utf-8")
    check_card(card, "peft")
    assert f"axolotl train {place}" in card
    assert "load_in_4bit: true" in card
    report = merge_run(run, device="cpu")
    assert report.parity is not None
    assert report.parity.source == "rows of the run"
