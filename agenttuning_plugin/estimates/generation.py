"""Estimate how long a model takes to write answers in batches."""

from __future__ import annotations

from typing import Any

from agenttuning_plugin.estimates.devices import Device
from agenttuning_plugin.estimates.shape import TrainingShape
from agenttuning_plugin.estimates.weights import model_weights

WRITING = {"cpu": 0.5, "cuda": 0.02}
"""Share of the peak speed reached while writing in batches of 32.

CPU: SmolLM2-135M on one core here took 0.14 s of CPU time for a token of each of 32 rows, which is
62 GFLOP/s. GPU, not measured: each step reads all weights, and memory bandwidth allows a few
percent of the peak at this batch size.
"""


def estimate_generation(model_config: Any, tokens: int, device: Device) -> float | None:
    """Estimate the seconds to write so many tokens, or None if the device's speed is not known.

    A token takes 2 N operations, N being the parameters that it passes through; reading prompts
    and attention are not included.

    Args:
        model_config: The model's transformers configuration.
        tokens: Tokens to write.
        device: The device.

    Raises:
        ConfigError: The model cannot be built.
    """
    if not device.peak:
        return None
    shape = TrainingShape(method="full", micro_batch=1, sequence_len=1, device="cpu")
    operations = 2 * model_weights(model_config, shape).active
    return tokens * operations / (WRITING[device.kind] * device.peak)
