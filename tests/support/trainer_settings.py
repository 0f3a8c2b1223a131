"""Settings whose name depends on the release of transformers."""

from __future__ import annotations

from typing import Any


def checkpointing(config: Any, on: bool) -> dict[str, bool]:
    """Recomputing activations, by the name that a class of settings has for it.

    transformers 5.23 renamed `gradient_checkpointing` and warns of the old name.
    """
    names = ("activation_checkpointing", "gradient_checkpointing")
    return {next(name for name in names if name in config.__dataclass_fields__): on}


def enable_checkpointing(model: Any) -> None:
    """Let a model recompute its activations, as training with the setting does."""
    new = getattr(model, "activation_checkpointing_enable", None)
    (new or model.gradient_checkpointing_enable)()
