"""Training with `endpoint:` on a real vLLM measures what evaluators in the process measure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

for _module in ("torch", "transformers", "openai", "peft"):
    pytest.importorskip(_module)

from agenttuning_plugin import AgentTuningConfig, TrainingRun, sft_defaults  # noqa: E402
from evaluators.results.evaluations import read_evaluations  # noqa: E402
from tests.support.axolotl_fixtures import NO_FUSED_LORA, NO_GPU  # noqa: E402
from tests.support.source_files import write_sides  # noqa: E402
from tests.support.trainer_settings import checkpointing  # noqa: E402
from tests.support.vllm_server import NEEDS_VLLM, serving_vllm, small_model, vllm_python  # noqa: E402

PYTHON = vllm_python()

pytestmark = [
    *NEEDS_VLLM,
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning"),
]

ROOT = Path(__file__).parents[3]
STEPS, TASKS, TOKENS = 4, 8, 12


@pytest.fixture(scope="module")
def model(small_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    small_model(small_tokenizer).save_pretrained(folder)
    small_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def address(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    assert PYTHON is not None
    with serving_vllm(PYTHON, model, tmp_path_factory.mktemp("vllm") / "log.txt") as url:
        yield url


@pytest.fixture
def section(address: str, tmp_path: Path) -> dict[str, Any]:
    """The same tasks in the process and on the server, at the start, in the middle, at the end."""
    play = {"limit": TASKS, "max_new_tokens": TOKENS}
    return {
        "holdout": 2,
        **write_sides(tmp_path, agent=12, general=40),
        "evaluators": [{"type": "benchmark", "name": "database", "every": 2, **play}],
        "endpoint": {"base_url": address, "suites": ["database"], "every": 2, **play},
    }


def said(output: Path, place: str) -> dict[str, list[str]]:
    """What the model wrote, by task; a character that the limit cut in two is left out."""
    lines = (output / place / "database.jsonl").read_text("utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if "item" in row]
    return {
        row["item"]: [
            m["content"].rstrip("\ufffd") for m in row["messages"] if m["role"] == "assistant"
        ]
        for row in rows
    }


def check_agreement(output: Path) -> None:
    """Compare the steps measured in both ways, and that training changed the answers."""
    rows = {(row["step"], row["evaluator"]): row for row in read_evaluations(output)}
    steps = [0, STEPS // 2, STEPS]
    assert {key for key in rows if "database" in key[1]} == {
        (step, name) for step in steps for name in ("database", "endpoint_database")
    }
    here = {step: said(output, f"transcripts/step-{step:06d}") for step in steps}
    for step in steps:
        assert len(here[step]) == TASKS
        assert said(output, f"endpoint/step-{step}/transcripts") == here[step]
        ours, theirs = (rows[step, name] for name in ("database", "endpoint_database"))
        assert not theirs["error"]
        assert theirs["metrics"] == ours["metrics"]
    assert here[0] != here[STEPS]


def test_axolotl(model: Path, section: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("axolotl", reason="pip install 'agenttuning-plugin[axolotl]'")
    recipe = (
        NO_GPU
        | NO_FUSED_LORA
        | {
            "base_model": str(model),
            "plugins": ["agenttuning_plugin.AgentTuningPlugin"],
            "agenttuning": section,
            "adapter": "lora",
            "lora_r": 8,
            "lora_alpha": 64,
            "lora_target_linear": True,
            "sequence_len": 512,
            "max_steps": STEPS,
            "micro_batch_size": 2,
            "gradient_accumulation_steps": 1,
            "learning_rate": 0.05,
            "optimizer": "adamw_torch",
            "lr_scheduler": "constant",
            "output_dir": str(tmp_path / "out"),
            "dataset_prepared_path": str(tmp_path / "prepared"),
            "save_strategy": "no",
            "logging_steps": 1,
        }
    )
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in recipe.items() if v is not None}), "utf-8")
    quiet = {"AXOLOTL_DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", "axolotl.cli.train", str(file)],
        env={**os.environ, **quiet, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    check_agreement(tmp_path / "out")


def test_trl(model: Path, section: dict[str, Any], tmp_path: Path, one_thread: None) -> None:
    trl = pytest.importorskip("trl", reason="pip install 'agenttuning-plugin[trl]'")
    from peft import LoraConfig
    from transformers import AutoTokenizer

    args = trl.SFTConfig(
        output_dir=str(tmp_path / "out"),
        max_steps=STEPS,
        per_device_train_batch_size=2,
        learning_rate=0.05,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        model_init_kwargs={"dtype": "float32"},
        **checkpointing(trl.SFTConfig, False),
        **sft_defaults(),
    )
    tokenizer = AutoTokenizer.from_pretrained(model)
    run = TrainingRun(
        AgentTuningConfig(**section), tokenizer, args, max_length=512, cache=tmp_path / "prepared"
    )
    trainer = trl.SFTTrainer(
        str(model),
        args,
        train_dataset=run.train_dataset,
        data_collator=run.data_collator,
        processing_class=tokenizer,
        peft_config=LoraConfig(r=8, lora_alpha=64, target_modules="all-linear"),
    )
    run.attach(trainer)
    trainer.train()
    check_agreement(tmp_path / "out")
