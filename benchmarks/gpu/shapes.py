"""Shapes of the benchmarked models, with their published sizes; weights are random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """Sizes of a model of the Llama or Qwen3 architecture.

    Attributes:
        base: The model with these sizes; sizes are those of its config.json.
        model_type: Architecture, by its name in transformers.
        values: Keyword arguments of the configuration.
    """

    base: str
    model_type: str
    values: dict[str, Any]

    def config(self, vocabulary: int | None = None) -> Any:
        """Return the transformers configuration.

        Args:
            vocabulary: Size of the vocabulary in place of the model's own.
        """
        from transformers import AutoConfig

        changed = {} if vocabulary is None else {"vocab_size": vocabulary}
        common = {"use_cache": False, "bos_token_id": None, "eos_token_id": None}
        return AutoConfig.for_model(self.model_type, **{**self.values, **common, **changed})


def _llama(base: str, hidden: int, inner: int, layers: int, heads: int) -> Shape:
    return Shape(
        base,
        "llama",
        {
            "vocab_size": 32_000,
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": 4_096,
            "rms_norm_eps": 1e-5,
        },
    )


def _qwen3(base: str, hidden: int, inner: int, layers: int, heads: int, **more: Any) -> Shape:
    sizes = {
        "vocab_size": 151_936,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "head_dim": 128,
        "max_position_embeddings": 40_960,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    }
    return Shape(base, "qwen3", sizes | more)


SHAPES = {
    "llama-2-7b": _llama("meta-llama/Llama-2-7b-chat-hf", 4_096, 11_008, 32, 32),
    "llama-2-13b": _llama("meta-llama/Llama-2-13b-chat-hf", 5_120, 13_824, 40, 40),
    "qwen3-0.6b": _qwen3("Qwen/Qwen3-0.6B", 1_024, 3_072, 28, 16),
    "llama-tiny": _llama("none: for trying the scripts", 64, 192, 2, 4),
    "qwen3-tiny": _qwen3("none: for trying the scripts", 64, 192, 2, 4, head_dim=16),
    # Wide enough that a leak between documents is far above rounding, small enough for float32.
    "llama-small": _llama("none: 4 layers of width 1,024", 1_024, 2_816, 4, 16),
    "qwen3-small": _qwen3("none: 4 layers of width 1,024", 1_024, 3_072, 4, 16),
}

# Peaks of dense bf16 matrix products in FLOP/s, from NVIDIA's data sheets; the first name that a
# device's own contains applies. A device that is not listed gets no MFU.
_PEAKS = (
    ("H100 NVL", 835e12),
    ("H100 PCIe", 756e12),
    ("H200", 989e12),
    ("H100", 989e12),
    ("B200", 2_250e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("RTX 4090", 165e12),
    ("RTX 3090", 71e12),
)


def peak_flops(device: str) -> float | None:
    """Return a device's peak of dense bf16 matrix products in FLOP/s, or None if unknown."""
    return next((peak for name, peak in _PEAKS if name in device), None)


def matrix_parameters(config: Any) -> int:
    """Count the weights that a token is multiplied with, with the output layer but no norms."""
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    attention = 2 * config.hidden_size * width * (heads + groups)
    mlp = 3 * config.hidden_size * config.intermediate_size
    layers = config.num_hidden_layers * (attention + mlp)
    return int(layers + config.vocab_size * config.hidden_size)


def flops_per_token(config: Any, *, context: float, adapter: int | None = None) -> float:
    """Count the floating point operations that training on one token needs.

    Full fine-tuning: 6 N + 6 L h c, where N counts the weights of `matrix_parameters`, L the
    layers, h the width of all heads together and c the tokens of the document: on average a token
    attends to c / 2 tokens, forward (4 h c / 2) and backward (twice that). With an adapter of A
    weights: 4 N + 6 A + 6 L h c, as frozen weights get no gradient. Recomputation under
    checkpointing is not counted (model, not hardware FLOPs). For Qwen3-0.6B and c = 8,192 this is
    the 6.394e9 behind prime-rl's published MFU: 26,005.17 tokens/s of 989e12 are 16.814 %.

    Args:
        config: Configuration of the model.
        context: Mean document length in tokens, weighted by tokens.
        adapter: Trained weights of an adapter; none: all weights are trained.
    """
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    attention = 6 * config.num_hidden_layers * width * context
    weights = matrix_parameters(config)
    return (6 * weights if adapter is None else 4 * weights + 6 * adapter) + attention
