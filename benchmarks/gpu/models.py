"""Models with random weights, built on the device, and their 4-bit form."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

SCALE = 0.02  # Standard deviation of the weights, as in most configurations.


def random_model(config: Any, device: str, *, dtype: torch.dtype, attention: str, nf4: bool) -> Any:
    """Build a model on the device without ever holding it twice.

    Args:
        config: Configuration of the model.
        device: Device of the weights.
        dtype: Type of the weights that are not quantised.
        attention: Implementation of the attention.
        nf4: Whether linear layers but for the output layer are in 4 bits (NF4, double
            quantisation), as QLoRA has them.
    """
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    if nf4:
        _quantize(model, device, dtype)
    for module in model.modules():
        if type(module).__name__.endswith("RotaryEmbedding"):
            with torch.device(device):
                module.__init__(config=config)  # type: ignore[misc]
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.is_meta:
                setattr(module, name, nn.Parameter(_random(parameter, device)))
    model.tie_weights()
    missing = [name for name, tensor in model.named_buffers() if tensor.is_meta]
    assert not missing, missing
    return model


def _random(like: torch.Tensor, device: str) -> torch.Tensor:
    new = torch.empty(like.shape, dtype=like.dtype, device=device)
    return new.normal_(std=SCALE) if new.dim() > 1 else new.fill_(1.0)


def _quantize(model: Any, device: str, dtype: torch.dtype) -> None:
    """Replace linear layers by 4-bit ones of random weights, one after another."""
    import bitsandbytes as bnb

    linear = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear) and child is not model.lm_head
    ]
    for parent, name, child in linear:
        new = bnb.nn.Linear4bit(
            child.in_features,
            child.out_features,
            bias=False,
            compute_dtype=dtype,
            quant_type="nf4",
            device="meta",
        )
        weights = _random(child.weight, device)
        new.weight = bnb.nn.Params4bit(weights, requires_grad=False, quant_type="nf4").to(device)
        setattr(parent, name, new)
    model.is_loaded_in_4bit = True  # What TRL and peft ask.
    model.requires_grad_(False)


def weight_type(case: dict[str, Any], device: str) -> torch.dtype:
    """Return the type of a case's weights that are not quantised.

    Full fine-tuning has weights and optimizer states in float32 and products in bf16, QLoRA
    on a GPU everything in bf16.
    """
    return torch.bfloat16 if case["method"] == "qlora" and device == "cuda" else torch.float32


def adapter(rank: int) -> Any:
    """Return the settings of LoRA adapters on every linear layer."""
    from peft import LoraConfig

    return LoraConfig(
        r=rank, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def trained_weights(model: Any) -> int:
    """Count the weights that training changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@contextmanager
def untouched(model: Any) -> Iterator[None]:
    """Undo what a trainer does to the forward methods of a model that another one takes next.

    TRL and accelerate replace them on the instance, one replacement around the other.
    """
    before = {module: module.__dict__.get("forward") for module in model.modules()}
    try:
        yield
    finally:
        for module, forward in before.items():
            module.__dict__.pop("forward", None)
            if forward is not None:
                module.forward = forward
        release()


def release() -> None:
    """Return unused memory to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_bytes() -> int | None:
    """Return the largest device memory allocated by tensors since `reset_peak`; None on a CPU."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def reset_peak() -> int | None:
    """Begin a new measurement of `peak_bytes`; return what is allocated; None on a CPU."""
    release()
    if not torch.cuda.is_available():
        return None
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def synchronize() -> None:
    """Wait until the device has done all work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def reason(error: Exception) -> str:
    """Return an error's type and the first line of its message."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
