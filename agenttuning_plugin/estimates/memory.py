"""Estimate the peak memory of a training run from its model's configuration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from agenttuning_plugin.estimates.activations import (
    depths_of,
    trace_generation,
    trace_scoring,
    trace_training,
    with_layers,
)
from agenttuning_plugin.estimates.fake_model import build_model
from agenttuning_plugin.estimates.live_memory import GRADIENTS
from agenttuning_plugin.estimates.optimizers import is_known
from agenttuning_plugin.estimates.shape import TrainingShape
from agenttuning_plugin.estimates.weights import (
    ModelWeights,
    communication_bytes,
    gradient_bytes,
    model_weights,
    static_parts,
    unpacked_bytes,
    update_bytes,
)

FRAMEWORK = {"cuda": 600 * 2**20, "cpu": 40 * 2**20}
"""Bytes that tensors do not account for, beside the loaded libraries.

On a GPU the CUDA context with its libraries' workspaces, which torch does not count; an
assumption. On a CPU small objects and scratch memory of kernels, fitted to
`benchmarks/results/memory.json`: 7 to 63 MB.
"""


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak memory of one process (one GPU) of a training run.

    Attributes:
        parts: Bytes by part at the peak.
        peak: Where the peak is: `training`, `optimizer step` or `evaluation`.
        peaks: Bytes of each of these, weights and optimizer states included.
        parameters: Parameters of the model, adapters excluded.
        active: Parameters that a token passes through: fewer in a mixture of experts.
        trainable: Parameters that are trained.
        notes: What was assumed, one line each.
    """

    parts: dict[str, int]
    peak: str
    peaks: dict[str, int]
    parameters: int
    active: int
    trainable: int
    notes: tuple[str, ...] = field(default=())

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return sum(self.parts.values())

    @property
    def evaluation(self) -> int:
        """Bytes of evaluation's own peak; 0 without evaluation."""
        return self.peaks.get("evaluation", 0)


def estimate_memory(model_config: Any, shape: TrainingShape) -> MemoryEstimate:
    """Estimate the peak memory of a run in one process.

    Weights, gradients and optimizer states follow from the parameters of the model, which is
    built without data. Activations and logits are counted in a traced forward and backward pass
    of its own code on fake tensors.

    Args:
        model_config: The model's transformers configuration.
        shape: The run.

    Raises:
        ConfigError: The model cannot be built or traced.
    """
    found = model_weights(model_config, shape)
    static = static_parts(found, shape) | {"framework": FRAMEWORK[shape.device]}
    moments = dict(_moments(model_config, found, shape))
    peaks = {name: sum((static | parts).values()) for name, parts in moments.items()}
    peak = max(peaks, key=peaks.__getitem__)
    parts = {name: size for name, size in (static | moments[peak]).items() if size}
    return MemoryEstimate(
        parts,
        peak,
        peaks,
        found.parameters,
        found.active,
        sum(each.numel for each in found.trained),
        tuple(_notes(shape)),
    )


def _moments(
    model_config: Any, found: ModelWeights, shape: TrainingShape
) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield what is in memory beside the static parts, at each moment that may be the peak."""
    depths = depths_of(build_model(model_config, shape), model_config.get_text_config())

    def traced(trace: Callable[..., dict[str, int]], **settings: Any) -> dict[str, int]:
        return depths.extrapolate(
            lambda layers: trace(with_layers(model_config, layers), shape, **settings)
        )

    gradients = {GRADIENTS: gradient_bytes(found, shape)}
    buffers = {
        "communication": communication_bytes(found, shape),
        "unpacked weight": unpacked_bytes(found),
    }
    # With one forward pass per step, gradients appear as the saved activations go.
    one_pass = shape.accumulation == 1 and shape.strategy == "none"
    training = traced(trace_training, keep_outer=one_pass)
    yield "training", _added(training, buffers, {} if one_pass else gradients)
    if shape.method == "full":
        last = trace_training(
            with_layers(model_config, 1), replace(shape, head="fused"), to_layers=False
        )
        if one_pass:  # the embedding's gradient is among those traced
            last["activations"] -= min(last["activations"], found.embedding)
        yield "end of the backward pass", _added(last, gradients, buffers)
    yield "optimizer step", gradients | {"optimizer step": update_bytes(found, shape)}
    evaluation = [
        traced(trace)
        for tokens, trace in (
            (shape.scored_tokens, trace_scoring),
            (shape.cached_tokens, trace_generation),
        )
        if tokens
    ]
    if evaluation:
        most = max(evaluation, key=lambda parts: sum(parts.values()))
        yield "evaluation", _added(most, buffers)


def _added(*parts: dict[str, int]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in parts:
        total.update(each)
    return dict(total)


def _notes(shape: TrainingShape) -> Iterator[str]:
    """Yield what an estimate assumes."""
    if shape.device == "cuda":
        yield f"CUDA context: {FRAMEWORK['cuda'] / 2**20:.0f} MB, an assumption"
        yield "without the allocator's fragmentation"
    if not is_known(shape.optimizer):
        yield f"optimizer {shape.optimizer}: counted as AdamW"
    if "paged" in shape.optimizer:
        yield "optimizer states counted in full; they move to main memory when the GPU is full"
    if shape.cached_tokens:
        yield f"evaluation: {shape.cached_tokens:,} tokens in the cache, an assumption"
    if shape.offload:
        yield "weights and optimizer states in main memory"
