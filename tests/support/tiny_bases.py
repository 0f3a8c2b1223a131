"""Tiny random models of the shipped recipes' architectures, with their families' templates."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.every_template import find_templates

_SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
}
_LINEAR = {
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,  # A multiple that 4-bit weights on a CPU need.
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
    "layer_types": ["linear_attention", "full_attention"],
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


@dataclass(frozen=True)
class Family:
    """What a base's folder on the hub holds, and how small it can be.

    Attributes:
        config: Class of its configuration in transformers.
        sizes: Settings of the tiny one.
        templates: Names of its own chat template among the installed trainers', the first one
            found; none: the recipe names one of this package.
        end: Its tokenizer's end token.
        other_tokens: Special tokens that its template does not spell.
        tools: Whether the template shows tools and writes calls.
    """

    config: str
    sizes: dict[str, Any]
    templates: tuple[str, ...]
    end: str
    other_tokens: tuple[str, ...] = ()
    tools: bool = True


_QWEN = ("trl/qwen3", "axolotl/qwen3")
_SMOLLM2 = Family("LlamaConfig", _SMALL, ("chatml-tools",), "<|im_end|>")
_LLAMA = Family(
    "LlamaConfig", _SMALL, ("trl/llama3_1",), "<|eot_id|>", ("<|finetune_right_pad_id|>",)
)
_QWEN3 = Family("Qwen3Config", _SMALL, _QWEN, "<|im_end|>")

FAMILIES = {
    "qwen3-8b": _QWEN3,
    "qwen3.5-9b": Family(
        "Qwen3_5TextConfig",
        {**_SMALL, **_LINEAR},
        ("trl/qwen3_5_nothink", "axolotl/qwen3_5"),
        "<|im_end|>",
    ),
    "llama-3.1-8b": _LLAMA,
    "llama-3.3-70b": _LLAMA,
    # SmolLM3's own template comes with neither trainer; its calls are spelt as this one's.
    "smollm3-3b": Family("SmolLM3Config", _SMALL, ("chatml-tools",), "<|im_end|>"),
    "smollm2-1.7b": _SMOLLM2,
    "smollm2-135m": _SMOLLM2,
    "gemma-3-1b": Family(
        "Gemma3TextConfig",
        {**_SMALL, "sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"]},
        ("trl/gemma3", "axolotl/gemma3"),
        "<eos>",
        ("<bos>", "<pad>"),
        tools=False,
    ),
    "qwen3-30b-a3b": Family("Qwen3MoeConfig", {**_SMALL, **_EXPERTS}, _QWEN, "<|im_end|>"),
}


def family_of(recipe: str) -> Family:
    """The family of a recipe of this name."""
    (name,) = [name for name in FAMILIES if recipe.startswith(f"{name}-")]
    return FAMILIES[name]


_CONTROL = re.compile(r"<\|?[a-z_0-9]+\|?>|</?(?:think|tool_call|tool_response|tools)>")


def save_tiny(recipe: str, small_tokenizer: Any, folder: Path) -> Path:
    """Save a tiny random model of a recipe's architecture, and a tokenizer of its family."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    family, found = family_of(recipe), find_templates()
    known = [found[name] for name in family.templates if name in found]
    if not known:
        pytest.skip(f"none of {family.templates} is among the installed trainers' templates")
    tokenizer = copy.deepcopy(small_tokenizer)
    tokens = {*_CONTROL.findall(known[0]), family.end, *family.other_tokens}
    tokenizer.add_tokens(sorted(tokens), special_tokens=True)
    tokenizer.eos_token = family.end
    if "<bos>" in family.other_tokens:
        tokenizer.bos_token, tokenizer.pad_token = "<bos>", "<pad>"
    tokenizer.chat_template = known[0]
    tokenizer.save_pretrained(folder)
    ids = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = getattr(transformers, family.config)(**family.sizes, **ids)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
