"""Trains cells of `training_cells` with TRL, as its guide says, recording what happens.

python train_trl.py RUNS.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from resume_recorder import Recorder, fork_each
from trainer_settings import checkpointing
from trl import SFTConfig, SFTTrainer

from agenttuning_plugin import AgentTuningConfig, TrainingRun, sft_defaults


def make_trainer(config: dict[str, Any]) -> SFTTrainer:
    """A trainer with a run attached."""
    import torch
    from peft import LoraConfig
    from transformers import AutoTokenizer, BitsAndBytesConfig

    args = SFTConfig(
        **config["arguments"],
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
        **checkpointing(SFTConfig, False),
        **sft_defaults(packing=config["packed"]),
    )
    tokenizer = AutoTokenizer.from_pretrained(config["model"])
    run = TrainingRun(
        AgentTuningConfig(**config["section"]),
        tokenizer,
        args,
        max_length=config["length"],
        packing=config["packed"],
        cache=config["cache"],
    )
    more: dict[str, Any] = {}
    if config["method"] != "full":
        more["peft_config"] = LoraConfig(
            r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear"
        )
    if config["method"] == "qlora":
        more["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )
    trainer = SFTTrainer(
        config["model"],
        args,
        train_dataset=run.train_dataset,
        data_collator=run.data_collator,
        processing_class=tokenizer,
        **more,
    )
    run.attach(trainer)
    return trainer


def train(path: str) -> None:
    """Train, from the last checkpoint where there is one."""
    config = json.loads(Path(path).read_text("utf-8"))
    trainer = make_trainer(config)
    Recorder(trainer)
    found = any(Path(config["arguments"]["output_dir"]).glob("checkpoint-*"))
    trainer.train(resume_from_checkpoint=found)
    trainer.save_model()


if __name__ == "__main__":
    fork_each(json.loads(Path(sys.argv[1]).read_text("utf-8")), train)
