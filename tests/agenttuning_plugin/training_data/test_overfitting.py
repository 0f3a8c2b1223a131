"""Held-out loss by agent task, and the warning when it rises while the training loss falls."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[trl]'")
transformers = pytest.importorskip("transformers")

from agenttuning_plugin import AgentTuningConfig, TrainingRun, sft_defaults  # noqa: E402
from agenttuning_plugin.reports.compare import pick, recorded_warnings  # noqa: E402
from agenttuning_plugin.reports.source_loss import read_losses  # noqa: E402
from agenttuning_plugin.trainers.axolotl_settings import encoding_of  # noqa: E402
from agenttuning_plugin.training_data.overfitting import OverfitWatch  # noqa: E402
from dataset_builders.errors import ConfigError, DataError  # noqa: E402
from evaluators.results.evaluations import read_evaluations  # noqa: E402
from tests.support.trainer_settings import checkpointing  # noqa: E402

WORDS = ["table", "select", "weather", "paper", "river", "count", "green", "seven"]


@pytest.fixture
def section(tmp_path: Path) -> dict[str, Any]:
    """Agent data of two tasks that cannot be learned but by heart, and some chat."""

    def write(name: str, tasks: list[str], number: int) -> str:
        rng = random.Random(name)
        rows = [
            {
                "task": tasks[i % len(tasks)],
                "messages": [
                    {"role": "user", "content": f"{name} {i}"},
                    {"role": "assistant", "content": " ".join(rng.choices(WORDS, k=12))},
                ],
            }
            for i in range(number)
        ]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return str(path)

    agent, general = write("agent", ["os", "db"], 10), write("chat", [""], 8)
    return {"eta": 0.9, "holdout": 2, "agent_holdout": 2, "agent": agent, "general": general}


def make(section: dict[str, Any], model: Path, tmp_path: Path, **changes: Any) -> Any:
    """A run with its SFTTrainer."""
    trl = pytest.importorskip("trl", reason="pip install 'agenttuning-plugin[trl]'")
    settings: dict[str, Any] = {
        "output_dir": str(tmp_path / "out"),
        "max_steps": 48,
        "per_device_train_batch_size": 8,
        "learning_rate": 5e-3,
        "lr_scheduler_type": "constant",
        "seed": 5,
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "logging_steps": 8,
        "save_strategy": "no",
        "disable_tqdm": True,
        **checkpointing(trl.SFTConfig, False),
        **sft_defaults(),
    }
    args = trl.SFTConfig(**settings | changes)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    config = AgentTuningConfig(**section)
    run = TrainingRun(config, tokenizer, args, max_length=128, cache=tmp_path / "prepared")
    trainer = trl.SFTTrainer(
        str(model), args, train_dataset=run.train_dataset, processing_class=tokenizer
    )
    return run, trainer


def test_a_run_that_learns_its_agent_data_by_heart_warns(
    section: dict[str, Any], tiny_model_dir: Path, tmp_path: Path, one_thread: None
) -> None:
    evaluators = [{"type": "agent_loss", "every": 8, "patience": 2}]
    saving = {"save_strategy": "steps", "save_steps": 24}
    given = {**section, "evaluators": evaluators}
    run, trainer = make(given, tiny_model_dir, tmp_path, **saving)
    held_out = {tuple(row["input_ids"]) for row in run.prepared.agent_holdout}
    assert len(held_out) == 4
    assert run.report["agent_holdout"] == {"rows": 4}
    assert not any(tuple(row["input_ids"]) in held_out for row in run.train_dataset)
    assert sorted(run.prepared.agent_holdout_index["task"].to_pylist()) == ["db"] * 2 + ["os"] * 2
    run.attach(trainer)
    trainer.train()

    rows = read_evaluations(tmp_path / "out")
    assert [row["step"] for row in rows] == [0, 8, 16, 24, 32, 40, 48]
    values = {task: [row["metrics"][f"loss_{task}"].value for row in rows] for task in ("os", "db")}
    logged = [e for e in trainer.state.log_history if "eval_agent_loss_os" in e]
    assert [e["eval_agent_loss_os"] for e in logged] == values["os"]
    losses = [row["groups"]["agent/os"]["loss"] for row in read_losses(tmp_path / "out")]
    assert losses[-1] < losses[0] / 2  # learned by heart
    for task, found in values.items():
        for number, row in enumerate(rows):
            rising = number >= 2 and found[number - 2] < found[number - 1] < found[number]
            assert (f"overfitting of {task}" in row["warning"]) == rising
    warned = [row for row in rows if row["warning"]][-1]
    assert "rose in 2 evaluations in a row" in warned["warning"]
    assert "while its training loss fell from" in warned["warning"]
    (line,) = recorded_warnings(pick(tmp_path / "out", warned["step"]))
    assert line.startswith(f"agent: step {warned['step']}: overfitting of ")

    run, trainer = make(given, tiny_model_dir, tmp_path, **saving)
    run.attach(trainer)
    trainer.train(resume_from_checkpoint=str(tmp_path / "out/checkpoint-24"))
    again = read_evaluations(tmp_path / "out")
    assert [(r["step"], r["warning"]) for r in again] == [(r["step"], r["warning"]) for r in rows]


def watch(rows: list[dict[str, Any]] | None, patience: int = 3) -> Any:
    """A watch and the state of its trainer."""
    trainer: Any = SimpleNamespace(state=SimpleNamespace(global_step=0))
    training: Any = None if rows is None else SimpleNamespace(rows=rows)
    return OverfitWatch(trainer, patience, training=training), trainer.state


def logged(losses: list[float]) -> list[dict[str, Any]]:
    return [
        {"step": 10 * n, "groups": {"agent/os": {"loss": loss, "tokens": 100}}}
        for n, loss in enumerate(losses, 1)
    ]


@pytest.mark.parametrize(
    ("held", "trained", "warns"),
    [
        ([2.0, 1.0, 1.1, 1.2, 1.3], [2.0, 1.5, 1.0, 0.5], [4]),
        ([2.0, 1.0, 1.1, 1.0, 1.3], [2.0, 1.5, 1.0, 0.5], []),  # not in a row
        ([1.0, 1.1, 1.2, 1.3, 1.4], [2.0, 1.5, 1.0, 0.5], [3, 4]),
        ([2.0, 1.0, 1.1, 1.2, 1.3], [1.0, 1.5, 2.0, 2.5], []),  # both rise: not overfitting
        ([2.0, 1.0, 1.1, 1.2, 1.3], None, [4]),
    ],
)
def test_it_warns_where_the_two_diverge(
    held: list[float], trained: list[float] | None, warns: list[int]
) -> None:
    found, state = watch(None if trained is None else logged(trained))
    said = []
    for number, loss in enumerate(held):
        state.global_step = 10 * number
        if found({"os": loss, "db": 1.0}):
            said.append(number)
    assert said == warns


def test_agent_loss_needs_conversations_that_are_held_out(
    section: dict[str, Any], tiny_model_dir: Path, tmp_path: Path
) -> None:
    wrong = {**section, "agent_holdout": 0, "evaluators": [{"type": "agent_loss"}]}
    with pytest.raises(ConfigError, match="agent_loss needs an agent source and an agent_holdout"):
        AgentTuningConfig(**wrong)
    with pytest.raises(DataError, match=r"agent_holdout of task 'db' asks for 5 .* found 5"):
        make({**section, "agent_holdout": 5}, tiny_model_dir, tmp_path)


def test_axolotls_settings_hold_the_same_rows_out(section: dict[str, Any]) -> None:
    recipe = SimpleNamespace(sequence_len=128, excess_length_strategy=None, eot_tokens=None)
    found = encoding_of(recipe, AgentTuningConfig(**section))
    assert (found.holdout, found.agent_holdout) == (2, 2)


def test_rows_without_a_holdout_are_cached_as_before(
    section: dict[str, Any], tiny_model_dir: Path, tmp_path: Path
) -> None:
    run, _ = make({**section, "agent_holdout": 0}, tiny_model_dir, tmp_path)
    assert "agent_holdout" not in run.manifest.content["encoding"]
    assert "agent_holdout" not in run.report
    run, _ = make(section, tiny_model_dir, tmp_path)
    assert run.manifest.content["encoding"]["agent_holdout"] == 2
