"""Peak memory of training runs against its estimate, on a CPU.

Trains models of real shapes with random weights for two steps, each in a process of its own, and
compares the peak of resident memory with `agenttuning_plugin.estimates`. What the process holds
before the model, with all libraries loaded and used once on tiny models, is subtracted. malloc is
set to give each large tensor pages of its own and to return them when it is freed: else the peak
includes the heap's fragmentation.

    python benchmarks/memory.py [NAME...]

Writes `benchmarks/results/memory.json`; with names measures only these rows again.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agenttuning_plugin.estimates.activations import with_layers
from agenttuning_plugin.estimates.known_models import model_config_of
from agenttuning_plugin.estimates.memory import estimate_memory
from agenttuning_plugin.estimates.shape import TrainingShape

RESULT = Path(__file__).parent / "results" / "memory.json"
SMALL, MIDDLE = "HuggingFaceTB/SmolLM2-135M", "HuggingFaceTB/SmolLM2-360M"
QWEN, GEMMA = "Qwen/Qwen3-0.6B", "google/gemma-3-1b-it"
LORA, QLORA = {"method": "lora", "rank": 16}, {"method": "qlora", "rank": 16}

RUNS: list[tuple[str, dict[str, Any]]] = [
    (SMALL, {"sequence_len": 512}),
    (SMALL, {"sequence_len": 512, "attention": "eager"}),
    (SMALL, {"sequence_len": 512, "accumulation": 2}),
    (SMALL, {"sequence_len": 256, "micro_batch": 2, "checkpointing": True}),
    (SMALL, {"sequence_len": 512, "optimizer": "adafactor"}),
    (SMALL, {"sequence_len": 256, "micro_batch": 2, **LORA}),
    (SMALL, {"sequence_len": 1024, "checkpointing": True, **LORA}),
    (SMALL, {"sequence_len": 128, "micro_batch": 2, **QLORA}),
    (SMALL, {"sequence_len": 256, "checkpointing": True, **QLORA}),
    (SMALL, {"sequence_len": 128, "scored_tokens": 2048, **LORA}),
    (MIDDLE, {"sequence_len": 256}),
    (MIDDLE, {"sequence_len": 256, "optimizer": "adafactor", "checkpointing": True}),
    (MIDDLE, {"sequence_len": 256, **LORA}),
    (MIDDLE, {"sequence_len": 256, "checkpointing": True, **QLORA}),
    (QWEN, {"sequence_len": 128, "checkpointing": True}),
    (QWEN, {"sequence_len": 128, "checkpointing": True, **LORA}),
    (QWEN, {"sequence_len": 128, **QLORA}),
    (GEMMA, {"sequence_len": 128, "checkpointing": True, **LORA}),
]


def shape_of_run(settings: dict[str, Any]) -> TrainingShape:
    """Return a run's shape: float32, on a CPU."""
    common = {"dtype": "float32", "device": "cpu", "optimizer": "adamw_torch"}
    return TrainingShape(**{**common, **settings})


def title(model: str, settings: dict[str, Any]) -> str:
    """Return a row's name."""
    shape = shape_of_run(settings)
    name = f"{model.partition('/')[2]} {shape.method} {shape.micro_batch} x {shape.sequence_len}"
    name += f" {shape.optimizer.removesuffix('_torch')}"
    name += " checkpointing" if shape.checkpointing else ""
    name += " eager" if shape.attention == "eager" else ""
    name += f" accumulation {shape.accumulation}" if shape.accumulation > 1 else ""
    return name + (f" scoring {shape.scored_tokens}" if shape.scored_tokens else "")


def _status(field: str) -> int:
    """Return a field of this process's memory account, bytes."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def _load(config: Any, shape: TrainingShape) -> Any:
    """Return the model with random weights, quantized and with adapters as the shape has it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    model = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation=shape.attention
    )
    if shape.method == "qlora":
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            del model
            quantization = BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
            )
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, quantization_config=quantization, device_map="cpu"
            )
        for parameter in model.parameters():
            # A weight that is a view of the mapped file keeps all its pages resident.
            if not hasattr(parameter, "quant_state"):
                parameter.data = parameter.data.clone()
    if shape.method != "full":
        model = get_peft_model(model, LoraConfig(r=shape.rank, target_modules="all-linear"))
    return model


def _train(model: Any, shape: TrainingShape, vocabulary: int) -> None:
    """Train for two steps with transformers' Trainer."""
    import torch
    from transformers import Trainer, TrainingArguments

    ids = torch.randint(vocabulary, (shape.sequence_len,)).tolist()
    rows = [{"input_ids": ids, "labels": ids}] * (2 * shape.accumulation * shape.micro_batch)
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            output_dir=folder,
            max_steps=2,
            per_device_train_batch_size=shape.micro_batch,
            gradient_accumulation_steps=shape.accumulation,
            gradient_checkpointing=shape.checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            optim=shape.optimizer,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        Trainer(model, args, train_dataset=rows).train()


def _score(model: Any, tokens: int, vocabulary: int) -> None:
    """Score a row as the evaluators do."""
    import torch

    from evaluators.models.token_model import TokenModel

    ids = torch.randint(vocabulary, (tokens,)).tolist()
    TokenModel(model, pad_id=0).score([ids])


def warm_up() -> None:
    """Train tiny models of every method, so that all code is loaded before anything is measured."""
    for method in ("full", "lora", "qlora"):
        for model in (SMALL, GEMMA):
            tiny = with_layers(model_config_of(model), 1)
            tiny.vocab_size = 256
            shape = shape_of_run({"sequence_len": 16, "method": method, "checkpointing": True})
            _train(_load(tiny, shape), shape, 256)


def measure(model: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Run one row in this process; bytes at the peak, less those before the model."""
    import torch

    shape = shape_of_run(settings)
    config = model_config_of(model)
    torch.manual_seed(0)
    gc.collect()
    before = _status("VmRSS")
    loaded = _load(config, shape)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", "utf-8")  # the peak begins here
    start = time.perf_counter()
    _train(loaded, shape, config.get_text_config().vocab_size)
    if shape.scored_tokens:
        _score(loaded.eval(), shape.scored_tokens, config.get_text_config().vocab_size)
    return {
        "measured": _status("VmHWM") - before,
        "libraries": before,
        "seconds": round(time.perf_counter() - start, 1),
    }


def run(model: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Measure one row in a process of its own, forked from this one with its libraries loaded."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, json.dumps(measure(model, settings)).encode())
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    if not text:
        sys.exit(f"{title(model, settings)}: failed, see above")
    found: dict[str, Any] = json.loads(text)
    return found


def predict(model: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return a row's estimate."""
    estimate = estimate_memory(model_config_of(model), shape_of_run(settings))
    return {
        "model": model,
        "settings": settings,
        "predicted": estimate.total,
        "peak": estimate.peak,
        "parts": estimate.parts,
    }


def main() -> None:
    """Measure all rows, or those named; estimate all; write them."""
    conditions = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    if not conditions.items() <= os.environ.items():
        settings = conditions | {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **settings})
    warm_up()
    stored = json.loads(RESULT.read_text("utf-8"))["rows"] if RESULT.is_file() else {}
    packages = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")
    result: dict[str, Any] = {
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, resident memory",
        "versions": {name: version(name) for name in packages},
        "rows": {},
    }
    for model, settings in RUNS:
        name = title(model, settings)
        found = stored.get(name)
        if not sys.argv[1:] or any(part in name for part in sys.argv[1:]):
            found = run(model, settings)
        if not found:
            continue
        row = {key: found[key] for key in ("measured", "libraries", "seconds")}
        row = predict(model, settings) | row
        row["ratio"] = round(row["predicted"] / row["measured"], 3)
        result["rows"][name] = row
        figures = f"{row['predicted'] / 1e6:8,.0f} {row['measured'] / 1e6:8,.0f}"
        print(f"{name:62} {figures} {row['ratio']:6.3f}", flush=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
