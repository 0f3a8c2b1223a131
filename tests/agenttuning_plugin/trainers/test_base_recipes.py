"""Recipes of current bases: each trains two steps on a tiny model of its own architecture.

With the family's own chat template and trajectories of tool calls. FSDP, ZeRO and on-load
quantisation of experts need GPUs and are left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.axolotl_fixtures import RECIPES, cpu_recipe
from tests.support.tiny_bases import FAMILIES, family_of, save_tiny

CURRENT = sorted(
    path.stem for path in RECIPES.glob("*.yaml") if path.stem.startswith(tuple(FAMILIES))
)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "seek",
            "description": "Find a person's room.",
            "parameters": {
                "type": "object",
                "properties": {"name": {"type": "string", "description": "Who."}},
                "required": ["name"],
            },
        },
    }
]


def _trajectory(number: int) -> dict[str, Any]:
    """A question that a tool call answers."""
    call = {"name": "seek", "arguments": {"name": f"Ann{number}"}}
    return {
        "messages": [
            {"role": "user", "content": f"Where is Ann{number}?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "abcdefghi", "type": "function", "function": call}],
            },
            {"role": "tool", "tool_call_id": "abcdefghi", "content": f"room {number}"},
            {"role": "assistant", "content": f"In room {number}."},
        ],
        "tools": TOOLS,
    }


def _chat(number: int) -> dict[str, Any]:
    texts = (f"What is {number}+1?", f"It is {number + 1}.", "Thanks.", "You are welcome.")
    roles = ("user", "assistant") * 2
    return {"messages": [{"role": r, "content": t} for r, t in zip(roles, texts, strict=True)]}


@pytest.fixture
def base_recipe(small_tokenizer: Any, tmp_path: Path, one_thread: None) -> Callable[..., Path]:
    """Make a copy of a recipe for two steps of a tiny model of its architecture."""

    def make(name: str, **changes: Any) -> Path:
        for part, record in (("agent", _trajectory), ("general", _chat)):
            lines = [json.dumps(record(number)) + "\n" for number in range(40)]
            (tmp_path / f"{part}.jsonl").write_text("".join(lines), "utf-8")
        sources: dict[str, dict[str, Any]] = {
            part: {"path": str(tmp_path / f"{part}.jsonl"), "format": "messages"}
            for part in ("agent", "general")
        }
        if not family_of(name).tools:
            sources["agent"]["calls_as_text"] = True
        base = save_tiny(name, small_tokenizer, tmp_path / "base")
        changes = {"gradient_accumulation_steps": 4, **changes}  # so that any step has agent rows
        return cpu_recipe(name, base, sources, tmp_path, **changes)

    return make


def assert_trained(name: str, trainer: Any) -> None:
    """Two steps with finite losses, on calls and ends of turns, measured as the recipe says."""
    log = trainer.state.log_history
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert trainer.state.global_step == len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
    folder = Path(trainer.args.output_dir)
    weights = "adapter_model" if name.endswith(("qlora", "ray")) else "model"
    assert (folder / f"{weights}.safetensors").is_file()
    if weights == "adapter_model":
        assert any(type(m).__name__ == "Linear4bit" for m in trainer.model.modules())
    section = yaml.safe_load((RECIPES / f"{name}.yaml").read_text("utf-8"))["agenttuning"]
    figure_of = {
        "agent_task": "eval_database_success",
        "general_loss": "eval_general_loss",
        "replay": "eval_replay_action_match",
    }
    for evaluator in section["evaluators"]:
        figure = figure_of[evaluator["type"]]
        assert sorted(entry["step"] for entry in log if figure in entry) == [0, 2], figure

    tokenizer = trainer.processing_class
    trained = [
        tokenizer.decode([token for token in row["labels"] if token >= 0])
        for row in trainer.train_dataset
    ]
    end = "<end_of_turn>" if name.startswith("gemma") else family_of(name).end
    assert all(text.count(end) for text in trained)
    assert any("seek" in text and "Ann" in text for text in trained)


@pytest.mark.parametrize("name", CURRENT)
def test_recipe_trains_with_axolotl(
    name: str, base_recipe: Callable[..., Path], load: Callable[[Path], tuple[Any, Any]]
) -> None:
    from axolotl.train import train

    cfg, data = load(base_recipe(name))
    _, _, trainer = train(cfg=cfg, dataset_meta=data)
    assert_trained(name, trainer)
