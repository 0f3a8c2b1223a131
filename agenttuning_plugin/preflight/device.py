"""Estimate whether a run fits a device, and how long it takes there."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from agenttuning_plugin.config.findings import Finding
from agenttuning_plugin.console import duration
from agenttuning_plugin.estimates.devices import GB, PEAKS, Device, find_device, named_gpu
from agenttuning_plugin.estimates.known_models import model_config_of
from agenttuning_plugin.estimates.memory import MemoryEstimate, estimate_memory
from agenttuning_plugin.estimates.shape import TrainingShape
from agenttuning_plugin.estimates.speed import estimate_time
from dataset_builders.errors import ConfigError

_LISTED = 4
"""Parts of the memory that are named; the others are added up."""

_FULL = 0.95
"""Share of a device's memory above which an estimate is called close."""

_NAMED = re.compile(r"(?:(?P<name>.*\S)[ :,-]+)?(?P<memory>\d+(?:\.\d+)?) ?GB", re.IGNORECASE)


@dataclass(frozen=True)
class Hardware:
    """What a run needs of a device.

    Attributes:
        base_model: Folder or hub id of the model.
        shape: Returns the run's shape on a kind of device, `cuda` or `cpu`.
        for_gpu: Whether its settings are for a GPU: bf16, 4-bit weights, several processes.
        device: The device to compare with; none: the one found here.
    """

    base_model: str
    shape: Callable[[Any], TrainingShape]
    for_gpu: bool
    device: Device | None = None


def device_of(text: str) -> Device:
    """Return a GPU by its name and memory.

    Args:
        text: Such as `A100 80GB`, or `24GB`.

    Raises:
        ConfigError: It has another form.
    """
    found = _NAMED.fullmatch(text.strip())
    if not found or not float(found["memory"]):
        raise ConfigError(
            f"device: found {text!r}, expected a GPU's memory, with its name if its speed is to be "
            f"used, such as '24GB' or 'A100 80GB'; known: {', '.join(PEAKS)}"
        )
    return named_gpu(found["name"] or "GPU", int(float(found["memory"]) * GB))


def check_hardware(
    hardware: Hardware, steps: int | None, facts: dict[str, Any]
) -> Iterator[Finding]:
    """Estimate memory and time of a run, and compare them with a device.

    A run written for a GPU is estimated for one, also on a machine that has none.

    Args:
        hardware: The run.
        steps: Its optimizer steps, if they are known.
        facts: Receives `device`, `memory` and `seconds`.

    """
    device = hardware.device or find_device()
    on_gpu = device.kind == "cuda" or hardware.for_gpu
    shape = hardware.shape("cuda" if on_gpu else "cpu")
    facts["device"] = {"kind": device.kind, "name": device.name, "memory": device.memory}
    yield _hardware(device, hardware.for_gpu)
    try:
        config = model_config_of(hardware.base_model)
        found = _estimate(config, shape)
    except Exception as error:  # also of the model's own code, which is traced
        yield Finding("memory", f"not estimated: {' '.join(str(error).split())}", "warning")
        return
    facts["memory"] = {
        "total": found.total,
        "parts": found.parts,
        "peak": found.peak,
        "evaluation": found.evaluation,
        "parameters": found.parameters,
        "trainable": found.trainable,
        "notes": list(found.notes),
        "weight_shards": shape.world if shape.sharded else 1,
        "state_shards": shape.world if shape.strategy in ("zero2", "zero3", "fsdp2") else 1,
    }
    needed = f"{size(found.total)} a {'GPU' if on_gpu else 'process'} (estimate)"
    yield Finding("memory", f"{needed}, most in {found.peak}: {_parts(found)}")
    if device.kind == "cuda" or not on_gpu:
        yield from _fit(config, shape, found, device)
        time = estimate_time(config, shape, steps, device) if steps else None
        if time is not None:
            facts["seconds"] = list(time.seconds)
            low, high = (duration(each) for each in time.seconds)
            detail = f"{low} to {high} for {steps:,} steps (estimate), without evaluation"
            yield Finding("time", detail)


def _hardware(device: Device, for_gpu: bool) -> Finding:
    if device.kind == "cuda":
        number = f"{device.count} x " if device.count > 1 else ""
        return Finding("hardware", f"{number}{device.name}, {size(device.memory)}")
    name = f"{device.name}, {size(device.memory)} of main memory"
    if not for_gpu:
        return Finding("hardware", name)
    detail = f"no GPU here ({name}); the settings are for one (name it: --device '24GB')"
    return Finding("hardware", detail, "warning")


def _fit(
    config: Any, shape: TrainingShape, found: MemoryEstimate, device: Device
) -> Iterator[Finding]:
    share = found.total / device.memory
    if share <= _FULL:
        yield Finding("fit", f"fits: {share:.0%} of {size(device.memory)}")
        return
    how = "does not fit" if share > 1 else "may not fit"
    remedy = _remedy(config, shape, device)
    # A warning: only the run itself shows it for certain.
    yield Finding("fit", f"{how}: {share:.0%} of {size(device.memory)}; {remedy}", "warning")


_FOUND: dict[tuple[str, TrainingShape], MemoryEstimate] = {}


def _estimate(config: Any, shape: TrainingShape) -> MemoryEstimate:
    """Estimate a run's memory, once per model and shape."""
    key = (str(config.to_json_string()), shape)
    if key not in _FOUND:
        # Warnings of the model's own code, such as deprecations, are not the user's.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _FOUND[key] = estimate_memory(config, shape)
    return _FOUND[key]


def _remedy(config: Any, shape: TrainingShape, device: Device) -> str:
    """Return the first settings, one on the other, with which the run would fit."""
    settings: list[str] = []
    for text, change in _changes(shape):
        settings.append(text)
        shape = replace(shape, **change)
        if _estimate(config, shape).total <= _FULL * device.memory:
            return f"fits with {', '.join(settings)}"
    return f"not even with {', '.join(settings)}: use more GPUs or a smaller model"


def _changes(shape: TrainingShape) -> Iterator[tuple[str, dict[str, Any]]]:
    if not shape.checkpointing:
        yield "gradient_checkpointing: true", {"checkpointing": True}
    if shape.micro_batch > 1:
        accumulation = shape.accumulation * shape.micro_batch
        yield (
            f"micro_batch_size: 1 and gradient_accumulation_steps: {accumulation}",
            {"micro_batch": 1, "accumulation": accumulation},
        )
    if shape.cached_tokens > 4096:
        yield "batch_size: 4 of the evaluators", {"cached_tokens": 4096}
    if shape.method == "full":
        yield "adapter: lora", {"method": "lora", "head_dtype": None}
    if shape.method != "qlora":
        yield "adapter: qlora", {"method": "qlora", "head_dtype": None}
    yield (
        f"sequence_len: {shape.sequence_len // 2}",
        {"sequence_len": shape.sequence_len // 2},
    )


def _parts(found: MemoryEstimate) -> str:
    ranked = sorted(found.parts.items(), key=lambda item: -item[1])
    digits = 1 if found.total >= GB else 3
    listed = [f"{name} {each / GB:.{digits}f}" for name, each in ranked[:_LISTED]]
    rest = sum(each for _, each in ranked[_LISTED:])
    return ", ".join([*listed, f"other {rest / GB:.{digits}f}"] if rest else listed)


def size(number: float) -> str:
    """Return a number of bytes as text, in units of 2^30 or 2^20 bytes."""
    if number < 0.95 * GB:
        return f"{number / 2**20:.0f} MB"
    return f"{number / GB:.1f} GB" if number < 99.5 * GB else f"{number / GB:,.0f} GB"
