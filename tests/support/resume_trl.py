"""Trains with TRL for test_resume.py, writing down what it trains on.

python resume_trl.py RUNS.json, or with torch.distributed.run and one CONFIG.json
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from resume_recorder import Recorder, fork_each
from trainer_settings import checkpointing
from trl import SFTConfig, SFTTrainer

from agenttuning_plugin import EvaluatorCallback, GeneralLossEvaluator, Schedule
from agenttuning_plugin.evaluation.model_loading import load_tokenizer
from dataset_builders.mixing.mixes import mix
from dataset_builders.mixing.planning import Plan
from dataset_builders.mixing.preparation import Encoding, prepare


def make_trainer(config: dict[str, Any]) -> SFTTrainer:
    """The trainer of a run, with the mix as its data."""
    plan = Plan(eta=config["eta"], block=config["batch"])
    tokenizer = load_tokenizer(config["model"])
    encoding = Encoding(max_length=config["max_length"], holdout=config["holdout"])
    data = prepare(
        config["agent"], config["general"], plan=plan, tokenizer=tokenizer, encoding=encoding
    )
    rows, _ = mix(data, plan, seed=config["seed"], num_examples=config["steps"] * config["batch"])
    world = int(os.environ.get("WORLD_SIZE", "1"))
    settings = SFTConfig(
        output_dir=config["output"],
        max_steps=config["steps"],
        per_device_train_batch_size=config["micro_batch"],
        gradient_accumulation_steps=config["batch"] // config["micro_batch"] // world,
        save_steps=config["save_steps"],
        logging_steps=1,
        seed=config["seed"],
        use_cpu=True,
        bf16=False,
        **checkpointing(SFTConfig, False),
        disable_tqdm=True,
        train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = SFTTrainer(config["model"], settings, train_dataset=rows, processing_class=tokenizer)
    evaluator = GeneralLossEvaluator(data.holdout)
    EvaluatorCallback.install(trainer, [Schedule(evaluator, every=config["eval_steps"])])
    return trainer


def train(path: str) -> None:
    """Train, from the last checkpoint where there is one."""
    config = json.loads(Path(path).read_text("utf-8"))
    trainer = make_trainer(config)
    Recorder(trainer)
    found = any(Path(config["output"]).glob("checkpoint-*"))
    trainer.train(resume_from_checkpoint=found)
    trainer.save_model()


if __name__ == "__main__":
    if "WORLD_SIZE" in os.environ:
        train(sys.argv[1])
    else:
        fork_each(json.loads(Path(sys.argv[1]).read_text("utf-8")), train)
