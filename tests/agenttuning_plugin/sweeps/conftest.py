"""A recipe that a CPU trains in seconds, for sweeps of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.source_files import write_chats


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[..., Path]:
    """Writes a recipe of the given base model; keys of the section are those of `section`."""

    def write(base: Path, section: dict[str, Any] | None = None, **keys: Any) -> Path:
        recipe = {
            "base_model": str(base),
            "plugins": ["agenttuning_plugin.AgentTuningPlugin"],
            "agenttuning": {
                "eta": 0.25,
                "agent": write_chats(tmp_path / "agent.jsonl", "Action:", 9),
                "general": write_chats(tmp_path / "chat.jsonl", "It is", 24),
                "holdout": 4,
                "evaluators": [{"type": "general_loss"}],
                **(section or {}),
            },
            "sequence_len": 256,
            "max_steps": 3,
            "micro_batch_size": 2,
            "gradient_accumulation_steps": 1,
            "learning_rate": 1e-3,
            "seed": 7,
            **dict.fromkeys(("bf16", "fp16", "tf32"), False),
            "logging_steps": 1,
            "save_strategy": "no",
            **keys,
        }
        place = tmp_path / "recipe.yaml"
        place.write_text(yaml.safe_dump(recipe), "utf-8")
        return place

    return write
