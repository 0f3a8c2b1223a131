"""Data and settings of the runs that test_resume.py kills, small enough for two passes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import yaml

NUM_AGENT, NUM_GENERAL, HOLDOUT = 9, 40, 4
STEPS, BATCH, MICRO = 12, 8, 2  # optimizer steps, rows in a global and in a micro batch
SAVE, EVAL = 3, 4  # steps between checkpoints and between evaluations
KILL = 8, 1  # step and micro batch, from 0: after the evaluation of step 8, which comes again
CHECKPOINT = KILL[0] // SAVE * SAVE
ETA, SEED = 0.25, 7
RANKS = 2


def write_chats(path: Path, name: str, number: int) -> Path:
    """Conversations of two exchanges, no two alike, of very different lengths."""
    rng = random.Random(name)
    words = ["table", "select", "weather", "paper", "river", "count", "green", "seven"]

    def turn(role: str, number: int) -> dict[str, str]:
        text = " ".join(rng.choices(words, k=rng.randrange(2, 25)))
        return {"role": role, "content": f"{name} {number}: {text}"}

    chats = [[turn(role, number) for role in ("user", "assistant") * 2] for number in range(number)]
    path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats), "utf-8")
    return path


def axolotl_config(sources: dict[str, str], folder: Path, ranks: int = 1) -> Path:
    """A recipe; the same file starts and resumes a run."""
    recipe = {
        "base_model": sources["model"],
        "plugins": ["agenttuning_plugin.AgentTuningPlugin", "resume_axolotl.RecorderPlugin"],
        "agenttuning": {
            "eta": ETA,
            "agent": sources["agent"],
            "general": sources["general"],
            "holdout": HOLDOUT,
            "evaluators": [{"type": "general_loss", "every": EVAL}],
        },
        "sequence_len": 512,
        "max_steps": STEPS,
        "micro_batch_size": MICRO,
        "gradient_accumulation_steps": BATCH // MICRO // ranks,
        "learning_rate": 1e-3,
        "optimizer": "adamw_torch",
        "lr_scheduler": "cosine",
        "seed": SEED,
        "attn_implementation": "sdpa",
        "bf16": False,
        "fp16": False,
        "tf32": False,
        "dataset_num_proc": 1,
        "dataloader_num_workers": 0,
        "output_dir": str(folder / "out"),
        "dataset_prepared_path": str(folder / "prepared"),
        "save_steps": SAVE,
        "logging_steps": 1,
        "auto_resume_from_checkpoints": True,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), "utf-8")
    return path


def trl_config(sources: dict[str, str], folder: Path, ranks: int = 1) -> Path:
    """Settings for resume_trl.py, which divides the batch among its ranks by itself."""
    config = {
        **sources,
        "eta": ETA,
        "holdout": HOLDOUT,
        "max_length": 512,
        "steps": STEPS,
        "batch": BATCH,
        "micro_batch": MICRO,
        "save_steps": SAVE,
        "eval_steps": EVAL,
        "seed": SEED,
        "output": str(folder / "out"),
    }
    path = folder / "config.json"
    path.write_text(json.dumps(config), "utf-8")
    return path


CONFIGS = {"axolotl": axolotl_config, "trl": trl_config}
