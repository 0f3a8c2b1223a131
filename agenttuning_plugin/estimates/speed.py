"""Estimate how long a run takes, from the operations of its model and a device's peak speed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from agenttuning_plugin.estimates.devices import Device
from agenttuning_plugin.estimates.shape import TrainingShape
from agenttuning_plugin.estimates.weights import ModelWeights, model_weights

UTILISATION = {"cuda": (0.168, 0.284), "cpu": (0.35, 0.65)}
"""Share of the peak that a run reaches, from and to.

GPU: model FLOPs utilisation that prime-rl publishes for supervised fine-tuning: 16.8 %
(Qwen3-0.6B, one H100, rows of 8k) to 28.4 % (Qwen3-4B, eight H200, rows of 16k). CPU: LoRA
on SmolLM2-135M reached 59 % of one core's matrix products here.
"""


@dataclass(frozen=True)
class TimeEstimate:
    """Time of a run's training steps; evaluation is not included.

    Attributes:
        seconds: From and to.
        tokens_per_second: From and to, of all devices.
    """

    seconds: tuple[float, float]
    tokens_per_second: tuple[float, float]


def estimate_time(
    model_config: Any, shape: TrainingShape, steps: int, device: Device
) -> TimeEstimate | None:
    """Estimate the time of a run; none if the device's speed is not known.

    Raises:
        ConfigError: The model cannot be built.
    """
    if not device.peak:
        return None
    operations = flops_per_token(model_config, model_weights(model_config, shape), shape)
    low, high = (
        share * device.peak * shape.world / operations for share in UTILISATION[device.kind]
    )
    tokens = steps * shape.accumulation * shape.tokens * shape.world
    return TimeEstimate((tokens / high, tokens / low), (low, high))


def estimate_seconds(
    model_config: Any, shape: TrainingShape, steps: int, device: Device
) -> float | None:
    """Return the middle of `estimate_time`'s range, in proportion; none if it has none."""
    found = estimate_time(model_config, shape, steps, device)
    return math.sqrt(found.seconds[0] * found.seconds[1]) if found else None


def flops_per_token(model_config: Any, found: ModelWeights, shape: TrainingShape) -> float:
    """Return the operations of a training step per token.

    A forward pass has 2 N operations, N being the parameters of matrices that a token passes
    through, and 2 L T D for causal attention over rows of T tokens with L layers of width D
    (PaLM, arXiv 2204.02311, appendix B, halved for the causal mask). A backward pass has twice as
    many; with adapters, whose frozen matrices need no gradient, as many again for N. Recomputed
    activations add a forward pass.
    """
    text = model_config.get_text_config()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    width = text.num_attention_heads * head
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
    window = getattr(text, "sliding_window", None) or shape.sequence_len
    lengths = {"full_attention": shape.sequence_len, "sliding_attention": window}
    attention = sum(2 * width * min(lengths.get(kind, 0), shape.sequence_len) for kind in kinds)
    matrices = 2 * found.matrices
    adapters = 2 * sum(each.numel for each in found.weights if each.name == "adapter")
    backward = (1 if shape.method != "full" else 2) * matrices + 2 * (attention + adapters)
    forward = matrices + attention + adapters
    return float(backward + forward * (2 if shape.checkpointing else 1))
