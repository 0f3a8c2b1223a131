"""Fast fingerprint of a model's weights."""

from __future__ import annotations

import re
from collections.abc import Set
from hashlib import blake2b
from typing import Any

_SAMPLES = 256
"""Values sampled per tensor: a training step changes nearly all trained ones."""

_LORA = re.compile(r"\.lora_(?:embedding_)?[AB]\.")
"""The two matrices of a LoRA adapter, whose product is added to the weights."""


def fingerprint(model: Any) -> str:
    """Return a short digest of a sample of every parameter.

    Under sharding it covers this process's shard.

    Args:
        model: A torch module.
    """
    return _digest(model, frozenset())


def start_fingerprint(model: Any) -> str:
    """Return `fingerprint` without LoRA matrices that add zero, as those of an untrained adapter.

    Adapters of different seeds and ranks have the same before the first step.

    Args:
        model: A torch module.
    """
    parts: dict[str, dict[str, bool]] = {}  # By pair: whether each matrix is zero.
    for name, parameter in model.named_parameters():
        if (found := _LORA.search(name)) is not None:
            pair = f"{name[: found.start()]}.{name[found.end() :]}"
            held = _held(parameter)
            # An empty shard says nothing about the matrix.
            parts.setdefault(pair, {})[name] = bool(held.numel()) and not bool(held.any())
    idle = {name for pair in parts.values() if any(pair.values()) for name in pair}
    return _digest(model, idle)


def _digest(model: Any, without: Set[str]) -> str:
    digest = blake2b(digest_size=8)
    for name, parameter in model.named_parameters():
        if name in without:
            continue
        values = _held(parameter).reshape(-1)
        sample = values[:: max(1, values.numel() // _SAMPLES)]
        digest.update(name.encode())
        digest.update(sample.float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _held(parameter: Any) -> Any:
    # FSDP2 and ZeRO-3 hand out handles; what lies here is behind these attributes.
    held = getattr(parameter, "ds_tensor", parameter)
    held = held.to_local() if hasattr(held, "to_local") else held
    return held.detach()
