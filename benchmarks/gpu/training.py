"""Training speed and peak memory with the plugin and with TRL alone, on the same rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.gpu import models, rows
from benchmarks.gpu.prediction import predict
from benchmarks.gpu.shapes import SHAPES, flops_per_token, peak_flops

SIDES = ("trl", "plugin")
SAME_LOSS = 1e-3  # Relative; kernels of a GPU add up in another order from run to run.
CHECKED_BATCHES = 4

Case = dict[str, Any]
Save = Callable[[dict[str, Any]], None]


class Clock(TrainerCallback):
    """Records the moment at which each optimizer step has ended on the device."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Take the time, data loading and callbacks of the step included."""
        models.synchronize()
        self.moments.append(time.perf_counter())

    def seconds(self, warmup: int) -> list[float]:
        """Return the seconds of each step after the first `warmup` ones."""
        ends = self.moments[warmup - 1 :]
        return [end - start for start, end in pairwise(ends)]


def build(case: Case, device: str) -> Any:
    """Return the model of a case on the device, with an adapter for QLoRA."""
    qlora = case["method"] == "qlora"
    model = models.random_model(
        SHAPES[case["shape"]].config(case.get("vocabulary")),
        device,
        dtype=models.weight_type(case, device),
        attention=case["attention"],
        nf4=qlora,
    )
    if not qlora:
        return model
    from peft import get_peft_model

    return get_peft_model(model, models.adapter(case["rank"]))


def make_arguments(case: Case, folder: Path, device: str) -> Any:
    """Return the trainer's arguments of a case."""
    return rows.arguments(
        folder / "out",
        device,
        max_steps=case["steps"],
        per_device_train_batch_size=case["batch"],
        gradient_accumulation_steps=case["accumulation"],
        checkpointing=case["checkpointing"],
        # Not the recipe's paged one: torch does not count the memory of that.
        optim="adamw_torch_fused" if device == "cuda" else "adamw_torch",
    )


def make_trainer(side: str, model: Any, run: Any, args: Any, plain: Any) -> Any:
    """Return TRL's trainer: with the plugin attached, or with TRL's own collator alone."""
    from trl import SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    plugin = side == "plugin"
    pad = run.tokenizer.pad_token_id
    own = DataCollatorForLanguageModeling(pad_token_id=pad, padding_free=True)
    trainer = SFTTrainer(
        model,
        args,
        train_dataset=run.train_dataset if plugin else plain,
        data_collator=run.data_collator if plugin else own,
        processing_class=run.tokenizer,
    )
    if plugin:
        run.attach(trainer)
    return trainer


def train_once(side: str, model: Any, run: Any, args: Any, plain: Any) -> dict[str, Any]:
    """Train all steps of one side; times are of the steps after the warm-up."""
    with models.untouched(model):
        before = models.reset_peak()
        trainer = make_trainer(side, model, run, args, plain)
        clock = Clock()
        trainer.add_callback(clock)
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        peak = models.peak_bytes()
        return {"losses": losses, "peak_bytes": peak, "bytes_before": before, "clock": clock}


def same_batches(model: Any, run: Any, args: Any, plain: Any) -> bool:
    """Compare ids, labels and positions of the first batches of both sides."""
    batches = []
    for side in SIDES:
        with models.untouched(model):
            loader = make_trainer(side, model, run, args, plain).get_train_dataloader()
            batches.append(list(islice(loader, CHECKED_BATCHES)))
    return all(
        torch.equal(one[name].flatten(), other[name].flatten())
        for one, other in zip(*batches, strict=True)
        for name in ("input_ids", "labels", "position_ids")
    )


def compare_speed(case: Case, folder: Path, device: str, save: Save) -> None:
    """Train a shape in turns with the plugin and without, and save what was measured.

    Rounds begin with the one side and the other by turns; a round begins only if the longest
    one so far still fits. The figure of a side is the median over all its steps.
    """
    begun = time.perf_counter()
    args = make_arguments(case, folder, device)
    run = rows.packed_run(folder, args, case["length"])
    plain = rows.plain_rows(run)
    model = build(case, device)
    # In main memory, so that it is no part of the peak.
    fresh = {n: p.detach().cpu().clone() for n, p in model.named_parameters() if p.requires_grad}
    found = describe(case, model, plain) | predict(case, args, device)
    found["built_seconds"] = time.perf_counter() - begun
    found["same_batches"] = same_batches(model, run, args, plain)
    steps: dict[str, list[list[float]]] = {side: [] for side in SIDES}
    longest = 0.0
    for number in range(case["rounds"]):
        if number and time.time() + longest > case["deadline"]:
            break
        start = time.perf_counter()
        for side in SIDES if number % 2 == 0 else SIDES[::-1]:
            _restore(model, fresh)
            once = train_once(side, model, run, args, plain)
            steps[side].append(once.pop("clock").seconds(case["warmup"]))
            found[side] = once | {"step_seconds": steps[side]}
        longest = max(longest, time.perf_counter() - start)
        save(found | {"rounds": number + 1} | figures(case, found, step_tokens(case, plain)))


def step_tokens(case: Case, plain: Any) -> list[int]:
    """Return the tokens of each measured step."""
    size = case["batch"] * case["accumulation"]
    counts = [len(ids) for ids in plain["input_ids"]]
    return [sum(counts[step * size :][:size]) for step in range(case["warmup"], case["steps"])]


def _restore(model: Any, values: dict[str, Any]) -> None:
    """Set trained weights back, so that every round and side computes the same losses."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in values:
                parameter.copy_(values[name])
                parameter.grad = None


def describe(case: Case, model: Any, plain: Any) -> dict[str, Any]:
    """Return what a case's figures depend on."""
    adapter = models.trained_weights(model) if case["method"] == "qlora" else None
    context = rows.document_length(plain)
    config = SHAPES[case["shape"]].config(case.get("vocabulary"))
    return {
        "base": SHAPES[case["shape"]].base,
        "trained_weights": models.trained_weights(model),
        "document_tokens": context,
        "fill": sum(map(len, plain["input_ids"])) / (len(plain) * case["length"]),
        "flops_per_token": flops_per_token(config, context=context, adapter=adapter),
        "flops_per_token_full_rows": flops_per_token(
            config, context=case["length"], adapter=adapter
        ),
    }


def figures(case: Case, found: dict[str, Any], tokens: list[int]) -> dict[str, Any]:
    """Return tokens per second, MFU, and the plugin's speed as a ratio to TRL alone.

    Args:
        case: The case.
        found: With the seconds of each round's measured steps, by side.
        tokens: Tokens of these steps, the same in every round.
    """
    made: dict[str, Any] = {}
    cuda = torch.cuda.is_available()
    peak = peak_flops(torch.cuda.get_device_name()) if cuda else None
    for side in SIDES:
        rounds = found[side]["step_seconds"]
        rates = [n / s for seconds in rounds for n, s in zip(tokens, seconds, strict=True)]
        rate = median(rates)
        mfu = {} if peak is None else _mfu(rate, found, peak)
        made[side] = found[side] | {"tokens_per_second": rate} | mfu
    one, other = (found[side]["losses"] for side in SIDES)
    made["same_losses"] = all(
        abs(a - b) <= SAME_LOSS * abs(a) for a, b in zip(one, other, strict=True)
    )
    sides = (found[side]["step_seconds"] for side in SIDES)
    made["ratios"] = [sum(trl) / sum(plugin) for trl, plugin in zip(*sides, strict=True)]
    made["ratio"] = median(made["ratios"])
    return made


def _mfu(rate: float, found: dict[str, Any], peak: float) -> dict[str, float]:
    return {
        "mfu": rate * found["flops_per_token"] / peak,
        "mfu_full_rows": rate * found["flops_per_token_full_rows"] / peak,
    }
