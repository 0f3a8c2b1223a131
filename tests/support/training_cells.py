"""One training section, in every form that has to train alike: its inputs and configurations.

The model's weights and the data are drawn by numpy and the tokenizer is a committed file, so that
they are the same under every release of torch and transformers.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

TOKENIZER = Path(__file__).resolve().parents[1] / "assets/saved/tokenizer"
LENGTH = 192  # tokens of the longest row, and of a packed one
BATCH = 4  # rows in an optimizer step
SEED = 11
RATES = {"full": 2e-3, "lora": 1e-2, "qlora": 1e-2}

TrainerName = Literal["axolotl", "trl"]
METHODS = ("full", "lora", "qlora")


@dataclass(frozen=True)
class Cell:
    """One form of the section.

    Attributes:
        trainer: The trainer.
        method: What is trained.
        packed: Whether rows are packed.
        micro: Rows of a micro batch; the accumulation follows, as a step has `BATCH` rows.
        ranks: Number of processes.
        rule: `loss_normalization`.
        steps: Optimizer steps.
        save: Steps between checkpoints; 0: none.
        kill: Step and micro batch, from 0, after which the process dies; the run is then started
            again.
    """

    trainer: str
    method: str = "lora"
    packed: bool = False
    micro: int = 2
    ranks: int = 1
    rule: str = "tokens"
    steps: int = 8
    save: int = 0
    kill: tuple[int, int] | None = None

    @property
    def accumulation(self) -> int:
        """Micro batches of one process in a step."""
        return BATCH // self.micro // self.ranks

    @property
    def section_name(self) -> str:
        """What is trained on what: the name of a stored curve."""
        return f"{self.method}-{'packed' if self.packed else 'plain'}"

    @property
    def name(self) -> str:
        """Name of the cell's folder."""
        cut = f"{self.ranks}x{self.micro}x{self.accumulation}"
        killed = "-killed" if self.kill else ""
        return f"{self.trainer}-{self.section_name}-{self.rule}-{cut}-{self.steps}{killed}"


def sections() -> list[tuple[str, bool]]:
    """Methods, each without and with packing."""
    return list(itertools.product(METHODS, (False, True)))


def make_inputs(folder: Path) -> dict[str, str]:
    """Write model and data; returns their places."""
    model = _write_model(folder / "model")
    rng = np.random.default_rng(SEED)
    agent = _write_chats(folder / "agent.jsonl", "agent", 9, rng)
    general = _write_chats(folder / "general.jsonl", "general", 40, rng)
    return {"model": str(model), "agent": str(agent), "general": str(general)}


def digest(inputs: dict[str, str]) -> str:
    """Hash of weights, tokenizer and data: equal inputs are a condition of equal curves."""
    model = Path(inputs["model"])
    found = hashlib.sha256()
    for path in (TOKENIZER / "tokenizer.json", inputs["agent"], inputs["general"]):
        found.update(Path(path).read_bytes())
    from safetensors.numpy import load_file

    for name, value in sorted(load_file(model / "model.safetensors").items()):
        found.update(f"{name} {value.shape}".encode() + value.tobytes())
    return found.hexdigest()


def _write_model(folder: Path) -> Path:
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    rng = np.random.default_rng(SEED)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            drawn = rng.normal(scale=0.05, size=tuple(parameter.shape)).astype(np.float32)
            parameter.copy_(torch.from_numpy(drawn) + ("norm" in name))
    model.save_pretrained(folder)
    for path in TOKENIZER.iterdir():
        shutil.copy(path, folder)
    return folder


def _write_chats(path: Path, name: str, number: int, rng: np.random.Generator) -> Path:
    """Write conversations of two exchanges, no two alike, of very different lengths."""
    words = ["table", "select", "weather", "paper", "river", "count", "green", "seven"]

    def turn(role: str, number: int) -> dict[str, str]:
        text = " ".join(rng.choice(words, size=rng.integers(2, 9)))
        return {"role": role, "content": f"{name} {number}: {text}"}

    chats = [[turn(role, number) for role in ("user", "assistant") * 2] for number in range(number)]
    path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats), "utf-8")
    return path


def write_config(cell: Cell, inputs: dict[str, str], folder: Path) -> Path:
    """Write what the cell's trainer reads; the same file starts and resumes a run."""
    folder.mkdir(parents=True, exist_ok=True)
    if cell.trainer == "trl":
        path = folder / "config.json"
        path.write_text(json.dumps(_trl(cell, inputs, folder)), "utf-8")
    else:
        path = folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(_axolotl(cell, inputs, folder)), "utf-8")
    return path


def section_of(cell: Cell, inputs: dict[str, str]) -> dict[str, Any]:
    """The recipe's section, which both trainers are given."""
    return {
        "eta": 0.25,
        "agent": inputs["agent"],
        "general": inputs["general"],
        "holdout": 4,
        "loss_normalization": cell.rule,
    }


def _common(cell: Cell) -> dict[str, Any]:
    return {
        "max_steps": cell.steps,
        "gradient_accumulation_steps": cell.accumulation,
        "learning_rate": RATES[cell.method],
        "warmup_steps": 3,
        "weight_decay": 0.01,
        # Never reached: a gradient is compared as it is.
        "max_grad_norm": 1e6,
        "adam_beta1": 0.9,
        "adam_beta2": 0.95,
        "adam_epsilon": 1e-6,
        "seed": SEED,
        "bf16": False,
        "fp16": False,
        "tf32": False,
        "dataloader_num_workers": 0,
        "logging_steps": 1,
        "output_dir": "",
    }


def _trl(cell: Cell, inputs: dict[str, str], folder: Path) -> dict[str, Any]:
    return {
        "model": inputs["model"],
        "section": section_of(cell, inputs),
        "method": cell.method,
        "packed": cell.packed,
        "length": LENGTH,
        "cache": str(folder / "prepared"),
        "arguments": {
            **_common(cell),
            "output_dir": str(folder / "out"),
            "per_device_train_batch_size": cell.micro,
            "lr_scheduler_type": "cosine",
            "optim": "adamw_torch",
            "save_steps": cell.save or 1000,
        },
    }


def _axolotl(cell: Cell, inputs: dict[str, str], folder: Path) -> dict[str, Any]:
    recipe = {
        "base_model": inputs["model"],
        "plugins": ["agenttuning_plugin.AgentTuningPlugin", "resume_axolotl.RecorderPlugin"],
        "agenttuning": section_of(cell, inputs),
        **_common(cell),
        "output_dir": str(folder / "out"),
        "dataset_prepared_path": str(folder / "prepared"),
        "sequence_len": LENGTH,
        "micro_batch_size": cell.micro,
        "optimizer": "adamw_torch",
        "lr_scheduler": "cosine",
        "attn_implementation": "sdpa",
        "gradient_checkpointing": False,
        "dataset_num_proc": 1,
        "save_steps": cell.save or 1000,
        "auto_resume_from_checkpoints": True,
    }
    if cell.packed:
        recipe["sample_packing"] = True
    if cell.method != "full":
        recipe |= {"adapter": cell.method, "lora_r": 8, "lora_alpha": 16, "lora_dropout": 0.0}
        recipe |= {"lora_target_linear": True, "load_in_4bit": cell.method == "qlora"}
        # Fused kernels need a GPU.
        recipe |= {f"lora_{part}_kernel": False for part in ("mlp", "qkv", "o", "embedding")}
    return recipe
