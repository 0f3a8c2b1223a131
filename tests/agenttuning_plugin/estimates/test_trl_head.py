"""What the estimate assumes of TRL's output head is what the installed TRL does."""

from __future__ import annotations

from pathlib import Path

import pytest

trl = pytest.importorskip("trl", reason="pip install 'agenttuning-plugin[trl]'")

from agenttuning_plugin.estimates.recipe_shape import shape_of_arguments  # noqa: E402
from tests.support.trainer_settings import checkpointing  # noqa: E402


def test_trl_never_has_the_logits_of_a_whole_row_by_default(tmp_path: Path) -> None:
    recomputing = checkpointing(trl.SFTConfig, True)
    args = trl.SFTConfig(output_dir=str(tmp_path), bf16=False, use_cpu=True, **recomputing)
    assert shape_of_arguments(args, max_length=64).head == "chunked"


def test_another_trainer_has_them(tmp_path: Path) -> None:
    from transformers import TrainingArguments

    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert shape_of_arguments(args, max_length=64).head == "full"
