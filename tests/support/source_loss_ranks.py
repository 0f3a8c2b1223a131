"""Trains with TRL on one or several processes, for test_source_loss.py; its log is what is read.

python source_loss_ranks.py CONFIG.json, or with torch.distributed.run
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

from agenttuning_plugin import AgentTuningConfig, TrainingRun, sft_defaults
from tests.support.trainer_settings import checkpointing


def main(path: str) -> None:
    """Train; rank 0 writes the trainer's log beside the config."""
    config = json.loads(Path(path).read_text("utf-8"))
    world = int(os.environ.get("WORLD_SIZE", "1"))
    torch.set_num_threads(1)
    args = SFTConfig(
        output_dir=config["output"],
        max_steps=3,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=4 // world,
        learning_rate=0.0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        bf16=False,
        use_cpu=True,
        disable_tqdm=True,
        **checkpointing(SFTConfig, False),
        **sft_defaults(packing=True),
    )
    tokenizer = AutoTokenizer.from_pretrained(config["model"])
    run = TrainingRun(
        AgentTuningConfig(**config["section"]),
        tokenizer,
        args,
        max_length=96,
        packing=True,
        cache=Path(config["output"]) / "prepared",
    )
    trainer = SFTTrainer(
        config["model"],
        args,
        train_dataset=run.train_dataset,
        data_collator=run.data_collator,
        processing_class=tokenizer,
    )
    run.attach(trainer)
    trainer.train()
    if trainer.is_world_process_zero():
        log = Path(path).with_name(f"log-{world}.json")
        log.write_text(json.dumps(trainer.state.log_history), "utf-8")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
