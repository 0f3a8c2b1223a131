"""Bytes of weights, gradients and optimizer states, and how sharding divides them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from agenttuning_plugin.estimates.fake_model import (
    add_adapters,
    build_model,
    decoder_blocks,
    expert_weights,
    linear_weights,
)
from agenttuning_plugin.estimates.optimizers import Weight, state_bytes, step_bytes
from agenttuning_plugin.estimates.shape import TrainingShape

_ABSMAX_BLOCK = 64  # weights that share a scale (QLoRA, arXiv 2305.14314, section 3)
_NESTED_BLOCK = 256  # scales that share a scale
_BUCKET = 500_000_000  # elements, DeepSpeed's reduce_bucket_size and allgather_bucket_size


@dataclass(frozen=True)
class ModelWeights:
    """Parameters of a model as a run holds them.

    Attributes:
        weights: Each parameter once, adapters included.
        parameters: Number of parameters, adapters excluded.
        block: Bytes of the largest layer that sharding gathers at a time.
        outer: Bytes of what is in no layer: embeddings, last norm, output head.
        embedding: Bytes of the embedding.
        looked_up: Parameters of an embedding that is not the output head too.
        experts: Elements of experts' weights.
        expert_share: Share of the experts of a layer that a token passes through.
    """

    weights: tuple[Weight, ...]
    parameters: int
    block: int
    outer: int
    embedding: int
    looked_up: int
    experts: int
    expert_share: float

    @property
    def matrices(self) -> int:
        """Parameters of matrices that a token is multiplied with: not of embeddings.

        A tied embedding is one, as the output head.
        """
        return self.active - self.looked_up

    @property
    def trained(self) -> list[Weight]:
        """Parameters that are trained."""
        return [weight for weight in self.weights if weight.trained]

    @property
    def active(self) -> int:
        """Parameters that a token passes through, adapters excluded."""
        return round(self.parameters - self.experts * (1 - self.expert_share))


def model_weights(model_config: Any, shape: TrainingShape) -> ModelWeights:
    """Read a model's parameters from its configuration, by building it without data.

    Raises:
        ConfigError: It cannot be built, or no module has the name of an adapter's target.
    """
    model = build_model(model_config, shape)
    parameters = sum(each.numel() for each in model.parameters())
    blocks = [sum(each.nbytes for each in block.parameters()) for block in decoder_blocks(model)]
    total = sum(each.nbytes for each in model.parameters())
    experts = [weight for _, weight in expert_weights(model)]
    four_bit: set[int] = set()
    if shape.method == "qlora":
        four_bit = {id(weight) for _, weight in linear_weights(model)}
        if shape.quantize_experts:
            four_bit |= {id(weight) for weight in experts}
    own = {id(each) for each in model.parameters()}
    if shape.method != "full":
        model = add_adapters(model, shape)
    weights = [
        Weight(
            "adapter" if id(each) not in own else name,
            tuple(each.shape),
            each.itemsize,
            each.requires_grad,
            id(each) in four_bit,
        )
        for name, each in model.named_parameters()
    ]
    return ModelWeights(
        tuple(weights),
        parameters,
        max(blocks, default=0),
        total - sum(blocks),
        model.get_input_embeddings().weight.nbytes,
        _looked_up(model),
        sum(weight.numel() for weight in experts),
        _expert_share(model_config.get_text_config()),
    )


def _looked_up(model: Any) -> int:
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head is not None and head.weight is embedding.weight
    return 0 if tied else int(embedding.weight.numel())


def _expert_share(text: Any) -> float:
    used = getattr(text, "num_experts_per_tok", None)
    for name in ("num_local_experts", "num_experts", "n_routed_experts"):
        number = getattr(text, name, None)
        if number and used:
            return float(used / number)
    return 1.0


def loaded_bytes(weight: Weight, double_quantization: bool) -> int:
    """Return the bytes of a weight in memory; NF4 has four bits and a scale per 64 weights.

    Scales are float32, or with double quantization a byte each and a float32 per 256.
    """
    if not weight.four_bit:
        return weight.nbytes
    scales = math.ceil(weight.numel / _ABSMAX_BLOCK)
    if double_quantization:
        scales = scales + 4 * math.ceil(scales / _NESTED_BLOCK)
    else:
        scales *= 4
    return math.ceil(weight.numel / 2) + scales


def static_parts(found: ModelWeights, shape: TrainingShape) -> dict[str, int]:
    """Return the bytes that stay in memory for the whole run, by part, in one process."""
    four_bit = [each for each in found.weights if each.name != "adapter"]
    shards = shape.world if shape.sharded else 1
    states = shape.world if shape.strategy != "ddp" else 1
    trained = found.trained
    zero = shape.strategy in ("zero2", "zero3")
    if zero:  # DeepSpeed trains a copy in float32, of which each process has a part
        trained = [Weight(each.name, each.shape, 4, True) for each in trained]
    parts = {
        "weights": sum(loaded_bytes(each, shape.double_quantization) for each in four_bit)
        // shards,
        "adapters": sum(each.nbytes for each in found.weights if each.name == "adapter") // shards,
        "float32 copy": sum(each.nbytes for each in trained) // states if zero else 0,
        "optimizer states": state_bytes(shape.optimizer, trained) // states,
    }
    return {name: 0 if shape.offload else size for name, size in parts.items()}


def gradient_bytes(found: ModelWeights, shape: TrainingShape) -> int:
    """Return the bytes of all gradients that a process keeps; they have the weights' type."""
    states = shape.world if shape.strategy in ("zero2", "zero3", "fsdp2") else 1
    return sum(each.nbytes for each in found.trained) // states


def communication_bytes(found: ModelWeights, shape: TrainingShape) -> int:
    """Return the bytes of buffers in which processes exchange weights and gradients.

    FSDP2 and ZeRO-3: weights of two layers, the current and the next, and of what is in no layer;
    where those are trained, as many gradients. ZeRO-2: a bucket that is filled, one that is sent,
    and one of gathered weights. DDP: a copy of all gradients.
    """
    if shape.world == 1:
        return 0
    trained = found.trained
    if shape.strategy == "ddp":
        return sum(each.nbytes for each in trained)
    if shape.strategy == "zero2":
        bucket = min(_BUCKET, sum(each.numel for each in trained))
        return 3 * bucket * max(each.itemsize for each in trained)
    if shape.sharded:
        gathered = 2 * found.block + found.outer
        return 2 * gathered if shape.method == "full" else gathered
    return 0


def update_bytes(found: ModelWeights, shape: TrainingShape) -> int:
    """Return the bytes of temporary tensors of the optimizer's step, in one process."""
    states = shape.world if shape.strategy != "ddp" else 1
    if shape.strategy in ("zero2", "zero3"):
        return 4 * sum(each.numel for each in found.trained) // states  # gradients in float32
    return step_bytes(shape.optimizer, found.trained, shape.device) // states


def unpacked_bytes(found: ModelWeights) -> int:
    """Return the bytes of the largest 4-bit weight, unpacked while its layer computes."""
    return max((each.nbytes for each in found.weights if each.four_bit), default=0)
