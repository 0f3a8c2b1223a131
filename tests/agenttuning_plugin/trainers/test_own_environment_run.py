"""An environment of one's own from `env new` to a training run with its evaluators inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="pip install 'agenttuning-plugin[trl]'")

from agenttuning_plugin import AgentTuningConfig, TrainingRun, sft_defaults
from evaluators.results.evaluations import read_evaluations
from tests.support.hermes_template import HERMES
from tests.support.source_files import write_sides
from tests.support.trainer_settings import checkpointing

Run = Callable[..., tuple[int, str, str]]

RECIPE = """\
agenttuning:
  agent: DATA
  general: GENERAL
  holdout: 2
  evaluators:
    - {type: agent_task, environment: "./desk.py:Desk", num_tasks: 2, max_new_tokens: 9}
    - {type: agent_task, environment: "./desk.py:Desk", split: dev, num_tasks: 2, max_new_tokens: 9}
    - {type: replay, environment: "./desk.py:Desk", num_trajectories: 2}
    - {type: benchmark, name: "./number.py:Number", limit: 2, max_new_tokens: 9}
"""


@pytest.fixture
def model_dir(make_tokenizer: Callable[..., Any], tmp_path: Path) -> Path:
    """A random Llama of 2 layers with a template that renders tools."""
    import torch
    import transformers

    tokenizer = make_tokenizer(HERMES)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=4096, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_it_is_collected_trained_on_and_evaluated_in_training(
    run: Run, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    import trl
    from transformers import AutoTokenizer

    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert run("env", "new", "desk")[0] == run("env", "new", "number", "--text")[0] == 0
    given = ["--oracle", "--out", "data", "--num-tasks", 12]
    for reference in ("./desk.py:Desk", "./number.py:Number"):
        code, _, err = run("collect", "--env", reference, *given)
        assert code == 0, err
    sides = write_sides(tmp_path, agent=2, general=20)
    recipe = RECIPE.replace("DATA", str(folder / "data")).replace("GENERAL", sides["general"])
    (folder / "recipe.yaml").write_text(recipe)
    monkeypatch.chdir(tmp_path)  # Environments' files are relative to the recipe's folder.
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    args = trl.SFTConfig(
        output_dir="out", max_steps=2, per_device_train_batch_size=2, seed=5,
        bf16=False, use_cpu=True, report_to="none", logging_steps=1, save_strategy="no",
        **checkpointing(trl.SFTConfig, False), **sft_defaults(),
    )  # fmt: skip
    config = AgentTuningConfig.from_yaml("project/recipe.yaml")
    training = TrainingRun(config, tokenizer, args, max_length=4096, cache=tmp_path / "cache")
    trainer = trl.SFTTrainer(
        str(model_dir), args, train_dataset=training.train_dataset,
        data_collator=training.data_collator, processing_class=tokenizer,
    )  # fmt: skip
    training.attach(trainer)
    trainer.train()
    rows = {(row["step"], row["evaluator"]): row for row in read_evaluations(Path("out"))}
    assert {step for step, _ in rows} == {0, 2}
    assert {name for _, name in rows} == {"desk", "desk_dev", "replay", "number"}
    for (_, name), row in rows.items():
        assert row["num_errors"] == 0, row
        assert row["suite"] == ("replay" if name == "replay" else "own")
    code, out, err = run("view", "out")
    assert code == 0, err
    assert "12 episodes: " in out  # Twice two of each of three evaluators.
