"""What of a training run decides its memory: method, batch, precision, optimizer, sharding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Method = Literal["full", "lora", "qlora"]
Head = Literal["full", "chunked", "fused"]
Strategy = Literal["none", "ddp", "zero2", "zero3", "fsdp2"]

ALL_LINEAR = "all-linear"
"""Every linear layer but the output head, as PEFT names it; fused experts too."""

LINEAR_LAYERS = "linear-layers"
"""Every `nn.Linear` but the output head: Axolotl's `lora_target_linear`."""


@dataclass(frozen=True)
class TrainingShape:
    """Settings of a training run that its memory depends on.

    Attributes:
        method: All weights, low-rank adapters (LoRA), or adapters on 4-bit weights (QLoRA).
        micro_batch: Rows of one forward pass.
        sequence_len: Tokens of a row.
        accumulation: Forward passes per optimizer step; with several, gradients stay in memory.
        dtype: Type of the loaded weights; `auto`: the checkpoint's.
        autocast: Type of the computations under automatic mixed precision; none: the weights'.
        head_dtype: Type of embeddings, norms and output head where it differs from `dtype`.
        rank: Rank of the adapters.
        targets: Names of adapted modules, or `ALL_LINEAR` or `LINEAR_LAYERS` alone.
        dropout: Of the adapters.
        adapter_dtype: Type of the adapters' weights.
        double_quantization: Whether the constants of 4-bit blocks are quantized too.
        quantize_experts: Whether fused expert weights are 4-bit too; bitsandbytes only
            quantizes linear layers.
        checkpointing: Whether activations are recomputed in the backward pass.
        optimizer: Name as in `TrainingArguments.optim`.
        head: Logits of all tokens at once (`full`), in chunks (`chunked`), or never
            stored (`fused`: cut cross-entropy, Liger).
        attention: Implementation as in transformers.
        packed: Whether a row holds several documents, kept apart by a mask under `sdpa`.
        strategy: How weights, gradients and optimizer states are divided among processes.
        world: Number of processes.
        offload: Whether weights and optimizer states are kept in main memory.
        device: `cuda` or `cpu`.
        scored_tokens: Tokens of a forward pass of evaluation with logits; 0: no evaluation.
        cached_tokens: Tokens of a generating evaluation's cache, prompts and answers of
            the whole batch; 0: evaluation does not generate.
    """

    method: Method = "full"
    micro_batch: int = 1
    sequence_len: int = 2048
    accumulation: int = 1
    dtype: str = "auto"
    autocast: str | None = None
    head_dtype: str | None = None
    rank: int = 8
    targets: tuple[str, ...] = (ALL_LINEAR,)
    dropout: float = 0.0
    adapter_dtype: str = "float32"
    double_quantization: bool = True
    quantize_experts: bool = False
    checkpointing: bool = False
    optimizer: str = "adamw_torch_fused"
    head: Head = "full"
    attention: str = "sdpa"
    packed: bool = False
    strategy: Strategy = "none"
    world: int = 1
    offload: bool = False
    device: str = "cuda"
    scored_tokens: int = 0
    cached_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of one forward pass."""
        return self.micro_batch * self.sequence_len

    @property
    def sharded(self) -> bool:
        """Whether each process holds only its part of the weights."""
        return self.strategy in ("zero3", "fsdp2") and self.world > 1
