"""Initial weights of an adapter under Axolotl: those that PEFT draws from the seed.

Axolotl from 0.21 on draws them a second time, each module from a seed of its own, so that expert
and tensor parallelism do not shift them. TRL and earlier Axolotl keep PEFT's, and with other first
weights a section has another loss curve.
"""

from __future__ import annotations

from typing import Any

_PARALLEL = ("expert_parallel_size", "tensor_parallel_size")


def drawn_weights(cfg: Any, model: Any) -> dict[str, Any]:
    """Copy the weights that PEFT has just drawn.

    Args:
        cfg: The recipe.
        model: The model with its adapter.

    Returns:
        Weights by parameter; empty where the adapter is loaded from disk, or must be the same
        for every layout of processes.
    """
    if cfg.lora_model_dir or any((cfg.get(name) or 1) > 1 for name in _PARALLEL):
        return {}
    found = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and ".lora_" in name
    }
    if any(parameter.is_meta for parameter in found.values()):
        return {}
    return {name: parameter.detach().clone() for name, parameter in found.items()}


def restore_weights(model: Any, drawn: dict[str, Any]) -> int:
    """Put the drawn weights back, in the parameters' present type and place.

    Returns:
        The number of parameters that had changed.
    """
    import torch

    changed = 0
    for name, parameter in model.named_parameters():
        first = drawn.get(name)
        if first is None or first.shape != parameter.shape:
            continue
        first = first.to(device=parameter.device, dtype=parameter.dtype)
        if not torch.equal(first, parameter):
            changed += 1
            with torch.no_grad():
                parameter.copy_(first)
    return changed
