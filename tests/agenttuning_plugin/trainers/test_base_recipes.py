"""Recipes of current bases: each trains two steps on a tiny model of its own architecture.

With the family's own chat template and trajectories of tool calls. FSDP, ZeRO and on-load
quantisation of experts need GPUs and are left out.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.axolotl_fixtures import RECIPES, cpu_recipe, run_trl_script
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
def sources(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Trajectories with tool calls and chats, as files."""
    for part, record in (("agent", _trajectory), ("general", _chat)):
        lines = [json.dumps(record(number)) + "\n" for number in range(40)]
        (tmp_path / f"{part}.jsonl").write_text("".join(lines), "utf-8")
    return {
        part: {"path": str(tmp_path / f"{part}.jsonl"), "format": "messages"}
        for part in ("agent", "general")
    }


@pytest.fixture
def base_recipe(
    sources: dict[str, dict[str, Any]], small_tokenizer: Any, tmp_path: Path, one_thread: None
) -> Callable[..., Path]:
    """Make a copy of a recipe for two steps of a tiny model of its architecture."""

    def make(name: str, **changes: Any) -> Path:
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


def sft_trainer(recipe: Path) -> Any:
    """TRL's trainer with what an Axolotl recipe says."""
    trl = pytest.importorskip("trl", reason="pip install 'agenttuning-plugin[trl]'")
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    from agenttuning_plugin import AgentTuningConfig, TrainingRun, sft_defaults

    cfg = yaml.safe_load(recipe.read_text("utf-8"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        cfg["base_model"], **cfg.get("special_tokens", {})
    )
    args = trl.SFTConfig(
        output_dir=cfg["output_dir"],
        max_steps=cfg["max_steps"],
        per_device_train_batch_size=cfg["micro_batch_size"],
        gradient_accumulation_steps=cfg["gradient_accumulation_steps"],
        learning_rate=cfg["learning_rate"],
        logging_steps=1,
        bf16=False,
        report_to="none",
        **sft_defaults(packing=cfg["sample_packing"]),
    )
    run = TrainingRun(
        AgentTuningConfig.from_yaml(recipe),
        tokenizer,
        args,
        max_length=cfg["sequence_len"],
        packing=cfg["sample_packing"],
        end_of_turn=cfg.get("eot_tokens", ()),
        cache=cfg["dataset_prepared_path"],
    )
    adapter: dict[str, Any] = {}
    if cfg.get("adapter"):
        four_bits = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype="float32",
        )
        targets = cfg.get("lora_target_modules", "all-linear")
        lora = peft.LoraConfig(r=cfg["lora_r"], lora_alpha=16, target_modules=targets)
        adapter = {"quantization_config": four_bits, "peft_config": lora}
    trainer = trl.SFTTrainer(
        cfg["base_model"],
        args,
        train_dataset=run.train_dataset,
        data_collator=run.data_collator,
        processing_class=tokenizer,
        **adapter,
    )
    run.attach(trainer)
    return trainer


# One of attention alone, one that carries a state, one with another end of turn.
FAST = ("qwen3-8b-qlora", "qwen3.5-9b-qlora", "gemma-3-1b-qlora")


def names(*left_out: str) -> list[Any]:
    """The recipes as parameters, all but a few of them slow."""
    return [
        name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
        for name in CURRENT
        if name not in left_out
    ]


@pytest.mark.parametrize("name", names())
def test_recipe_trains_with_axolotl(
    name: str, base_recipe: Callable[..., Path], load: Callable[[Path], tuple[Any, Any]]
) -> None:
    from axolotl.train import train

    cfg, data = load(base_recipe(name))
    _, _, trainer = train(cfg=cfg, dataset_meta=data)
    assert_trained(name, trainer)


@pytest.mark.parametrize("name", FAST)
def test_check_accepts_a_local_base(
    name: str, base_recipe: Callable[..., Path], axolotl_process: None
) -> None:
    from agenttuning_plugin.preflight.check import check

    found = check(base_recipe(name))
    assert not [finding.detail for finding in found if finding.level == "error"]


# Ray is Axolotl's way to start processes; the recipe is otherwise that of Qwen3.
@pytest.mark.parametrize("name", names("qwen3-8b-ray"))
def test_recipe_trains_with_trl(name: str, base_recipe: Callable[..., Path]) -> None:
    trainer = sft_trainer(base_recipe(name))
    trainer.train()
    trainer.save_model()
    assert_trained(name, trainer)


def test_the_script_for_trl_trains(
    sources: dict[str, dict[str, Any]], small_tokenizer: Any, tmp_path: Path, one_thread: None
) -> None:
    base = save_tiny("qwen3-8b-qlora", small_tokenizer, tmp_path / "base")
    trainer = run_trl_script("trl_qwen3_8b.py", base, sources, tmp_path)
    trainer.train()
    trainer.save_model()
    assert_trained("qwen3-8b-qlora", trainer)


def test_rays_worker_trains(
    base_recipe: Callable[..., Path], axolotl_process: None, tmp_path: Path
) -> None:
    """Axolotl's function for a worker, with what its driver sends, in this process."""
    from axolotl.cli.config import load_cfg
    from axolotl.cli.train import TrainerCliArgs, ray_train_func

    cfg = load_cfg(str(base_recipe("qwen3-8b-ray", use_ray=True, ray_num_workers=1)))
    assert cfg.use_ray
    ray_train_func({"cfg": cfg.to_dict(), "cli_args": TrainerCliArgs()})
    assert_two_steps(tmp_path)


def assert_two_steps(folder: Path) -> None:
    """Losses of both steps are in the trainer's state."""
    text = (folder / "out/checkpoint-2/trainer_state.json").read_text("utf-8")
    log = json.loads(text)["log_history"]
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2]


@pytest.mark.slow
def test_recipe_trains_in_rays_workers(base_recipe: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("axolotl", reason="pip install 'agenttuning-plugin[axolotl]'")
    pytest.importorskip("ray", reason="pip install 'agenttuning-plugin[ray]'")
    if not pytest.importorskip("torch").cuda.is_available():
        pytest.skip("Axolotl loads the model of each of several Ray workers onto a GPU")
    recipe = base_recipe("qwen3-8b-ray", use_ray=True, ray_num_workers=2)
    environment = {
        **os.environ,
        "PYTHONPATH": str(RECIPES.parent),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "ACCELERATE_USE_CPU": "true",
    }
    script = RECIPES.parent / "tests/support/ray_training.py"
    done = subprocess.run(
        [sys.executable, str(script), str(recipe)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert_two_steps(tmp_path)
