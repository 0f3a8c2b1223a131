"""Shapes read from recipes and arguments, time, and the page and headers made of them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[trl]'")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft", reason="pip install 'agenttuning-plugin[trl]'")

from agenttuning_plugin.cli import recipes_page  # noqa: E402
from agenttuning_plugin.config.shipped import (  # noqa: E402
    read_recipe,
    recipe_folder,
    recipe_names,
)
from agenttuning_plugin.estimates.devices import Device, find_device, named_gpu  # noqa: E402
from agenttuning_plugin.estimates.known_models import model_config_of  # noqa: E402
from agenttuning_plugin.estimates.memory import estimate_memory  # noqa: E402
from agenttuning_plugin.estimates.recipe import hours_of, processes_of  # noqa: E402
from agenttuning_plugin.estimates.recipe_shape import shape_of, shape_of_arguments  # noqa: E402
from agenttuning_plugin.estimates.shape import ALL_LINEAR, LINEAR_LAYERS, TrainingShape  # noqa: E402
from agenttuning_plugin.estimates.speed import estimate_seconds, estimate_time  # noqa: E402

RESULT = Path(__file__).parents[3] / "benchmarks/results/memory.json"


def recipe(name: str) -> dict[str, Any]:
    return read_recipe(recipe_folder() / f"{name}.yaml")


def test_a_qlora_recipe_is_read() -> None:
    assert shape_of(recipe("agentlm-7b-qlora")) == TrainingShape(
        method="qlora",
        micro_batch=2,
        sequence_len=4096,
        accumulation=32,
        dtype="bfloat16",
        autocast="bfloat16",
        rank=64,
        targets=(LINEAR_LAYERS,),
        dropout=0.1,
        checkpointing=True,
        optimizer="paged_adamw_32bit",
        packed=True,
        scored_tokens=4096,
        cached_tokens=16 * 1024,
    )


@pytest.mark.parametrize(
    ("name", "world", "strategy"),
    [
        ("agentlm-7b", 8, "zero2"),
        ("agentlm-70b", 16, "fsdp2"),
        ("llama-3.3-70b-zero3", 32, "zero3"),
        ("qwen3-8b-ray", 4, "ddp"),
        ("agentlm-7b", 1, "none"),
    ],
)
def test_sharding_is_read(name: str, world: int, strategy: str) -> None:
    found = shape_of(recipe(name), world=world)
    assert (found.strategy, found.checkpointing) == (strategy, True)
    assert found.sharded == (strategy in ("zero3", "fsdp2"))
    assert (found.head_dtype == "float32") == (strategy == "none")


def test_precision_and_head_follow_the_keys() -> None:
    base = {"micro_batch_size": 1, "bf16": "auto"}
    assert shape_of(base).dtype == "bfloat16"
    assert shape_of(base, device="cpu").dtype == "float16"  # as Axolotl 0.19 has it
    assert shape_of({"bf16": False}).autocast is None
    assert shape_of({"fp16": True}).autocast == "float16"
    assert shape_of(base).head == "full"
    assert shape_of({**base, "cut_cross_entropy": True}).head == "fused"
    assert shape_of({**base, "chunked_cross_entropy": True}).head == "chunked"
    assert shape_of({**base, "flash_attention": True}).attention == "flash_attention_2"


def test_arguments_of_trl_are_read(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    args = trl.SFTConfig(
        output_dir=str(tmp_path),
        bf16=False,
        use_cpu=True,
        per_device_train_batch_size=3,
        optim="adafactor",
    )
    quantization = transformers.BitsAndBytesConfig(load_in_4bit=True)
    config = peft.LoraConfig(r=4, target_modules="all-linear")
    found = shape_of_arguments(
        args,
        max_length=99,
        peft_config=config,
        quantization=quantization,
        section={"evaluators": [{"type": "general_loss"}]},
    )
    assert found == TrainingShape(
        method="qlora",
        micro_batch=3,
        sequence_len=99,
        rank=4,
        targets=(ALL_LINEAR,),
        double_quantization=False,
        checkpointing=True,
        optimizer="adafactor",
        head="chunked",
        scored_tokens=2048,
    )
    assert found.adapter_dtype == "float32"
    assert shape_of_arguments(args, max_length=99).method == "full"
    args.fsdp = "full_shard"
    sharded = shape_of_arguments(
        args, max_length=99, peft_config=config, quantization=quantization, world=2
    )
    assert (sharded.strategy, sharded.adapter_dtype) == ("fsdp2", "bfloat16")


def test_every_evaluator_that_scores_rows_counts() -> None:
    for kind in ("general_loss", "agent_loss", "replay"):
        section = {"evaluators": [{"type": kind}]}
        assert shape_of({"agenttuning": section, "sequence_len": 4096}).scored_tokens == 4096


def test_time_follows_the_operations_of_the_paper() -> None:
    config = model_config_of("meta-llama/Llama-2-7b-hf")
    gpu = Device("cuda", "test", 0, peak=1e15)
    full = TrainingShape(sequence_len=4096, accumulation=2)
    found = estimate_time(config, full, 10, gpu)
    assert found
    # PaLM, appendix B: 6 N and 12 L H Q T per token, attention halved; N without the embedding.
    per_token = 6 * (6_738_415_616 - 32000 * 4096) + 6 * 32 * 4096 * 4096
    low, _high = found.tokens_per_second
    assert low == pytest.approx(0.168 * 1e15 / per_token, rel=1e-6)
    assert found.seconds[1] == pytest.approx(10 * 2 * 4096 / low)
    middle = estimate_seconds(config, full, 10, gpu)
    assert middle
    assert found.seconds[0] < middle < found.seconds[1]
    recomputed = estimate_time(config, replace(full, checkpointing=True), 10, gpu)
    adapters = estimate_time(config, replace(full, method="lora"), 10, gpu)
    assert recomputed
    assert recomputed.seconds[0] == pytest.approx(found.seconds[0] * 4 / 3)
    assert adapters
    assert adapters.seconds[0] < 0.72 * found.seconds[0]
    assert estimate_seconds(config, full, 10, named_gpu("Unknown GPU", 1)) is None


def test_devices_have_memory_and_speed() -> None:
    assert named_gpu("NVIDIA H100 80GB HBM3", 1).peak == 989e12
    assert named_gpu("NVIDIA H100 PCIe", 1).peak == 756e12
    assert named_gpu("NVIDIA L40S", 1).peak == 362e12
    assert named_gpu("NVIDIA L4", 1).peak == 121e12
    here = find_device()
    assert here.memory > 2**30
    assert here.count >= 1


def test_hours_and_processes_are_read() -> None:
    assert [hours_of(seconds) for seconds in (90, 5400, 90000)] == ["2 min", "1.5 h", "25 h"]
    assert processes_of("x --num_processes 16 --machine_rank RANK", {}) == 16
    assert processes_of("", {"use_ray": True, "ray_num_workers": 4}) == 4


def test_measured_peaks_are_within_15_percent() -> None:
    rows = json.loads(RESULT.read_text("utf-8"))["rows"]
    assert len(rows) >= 12
    assert {row["settings"].get("method", "full") for row in rows.values()} == {
        "full",
        "lora",
        "qlora",
    }
    for name, row in rows.items():
        assert row["ratio"] == round(row["predicted"] / row["measured"], 3)
        assert 0.85 <= row["ratio"] <= 1.15, name
    # The table's estimates are those of the code as it is.
    for row in list(rows.values())[3:5]:
        settings = {"dtype": "float32", "device": "cpu", "optimizer": "adamw_torch"}
        shape = TrainingShape(**{**settings, **row["settings"]})
        assert estimate_memory(model_config_of(row["model"]), shape).total == row["predicted"]


def check_page(name: str) -> None:
    page = (recipe_folder() / "README.md").read_text("utf-8")
    assert recipes_page.row(name) in page.splitlines()
    text = (recipe_folder() / name).read_text("utf-8")
    if name != recipes_page.DEMO:
        assert recipes_page.with_estimates(text, recipes_page._estimated(name)) == text


def test_the_page_and_a_header_are_up_to_date() -> None:
    check_page("smollm2-135m-qlora.yaml")
    page = (recipe_folder() / "README.md").read_text("utf-8")
    assert page.startswith(recipes_page._HEAD)
    assert page.endswith(recipes_page._FOOT)
    assert set(re.findall(r"^\| `([^`]+)`", page, re.M)) == set(recipe_names())


def test_a_changed_header_would_be_found() -> None:
    found = recipes_page._estimated("smollm2-135m-qlora.yaml")
    text = "# Hardware: x.\n# Memory: estimate 99 GB a GPU, 7 of them for the weights.\n"
    fixed = recipes_page.with_estimates(text, found)
    assert "99" not in fixed
    assert "7 of them" in fixed
    assert "# Time: estimate" in fixed
    assert recipes_page.with_estimates(fixed, found) == fixed
    stale = re.sub(r"estimate \d+ min to", "estimate 1 min to", fixed)
    assert recipes_page.with_estimates(stale, found) == fixed


@pytest.mark.slow
@pytest.mark.parametrize("name", recipe_names())
def test_every_row_and_header_is_up_to_date(name: str) -> None:
    check_page(name)
