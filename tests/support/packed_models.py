"""Tiny models with random weights of the architectures that people train on packed rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
transformers = pytest.importorskip("transformers")

_SMALL = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2}
_COMMON = {
    **_SMALL,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}
_OF_STATES = {
    **dict.fromkeys(("state_size", "ssm_state_size", "mamba_d_state"), 8),
    **dict.fromkeys(("mamba_n_groups", "mamba_ngroups", "n_groups", "num_mem_blocks"), 1),
    **dict.fromkeys(("mamba_n_heads", "n_mamba_heads", "mamba_num_heads"), 8),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "mamba_chunk_size", "chunk_size"), 8),
    **dict.fromkeys(("mamba_d_ssm", "lru_width"), 32),
    "mamba_dt_rank": 4,
    "context_length": 64,
}
_SPARSE = {  # Qwen4-Exp's index of keys, and its embeddings of n-grams
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 8,
    "indexer_compress_ratio": 4,
    "hc_lowrank": 8,
    "ple_layer_ids": [1],
    "ple_embed_dim": 32,
    "heads_per_ngram": 2,
    "ngram_vocab_size_base": 100,
    "eos_token_id": 2,
}
_LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
_ROUTED = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}

PLAIN: dict[str, dict[str, Any]] = {
    "Llama": _COMMON,
    "Qwen2": _COMMON,
    "Qwen3": _COMMON,
    "Mistral": {**_COMMON, "sliding_window": 8},
    "Gemma2": _COMMON,
    "Gemma3Text": {
        **_COMMON,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "Phi3": _COMMON,
    "Olmo2": _COMMON,
    "Granite": _COMMON,
    "Cohere": _COMMON,
    "SmolLM3": _COMMON,
    "GPTNeoX": {**_SMALL, "intermediate_size": 64, "num_attention_heads": 4},
    "Mixtral": {**_COMMON, "num_local_experts": 4},
    "Qwen3Moe": {**_COMMON, **_EXPERTS},
    "DeepseekV3": {**_COMMON, **_EXPERTS, **_LATENT, **_ROUTED},
}
"""Attention alone, which heeds positions: packing has to be taken."""

_ANY = {
    **_COMMON,
    **_LINEAR,
    **_EXPERTS,
    **_OF_STATES,
    **_LATENT,
    **_ROUTED,
    **_SPARSE,
    "num_local_experts": 4,
    "num_experts_per_tok": 1,
    "num_experts_per_token": 1,
    "num_expert_group": 1,
    "linear_head_dim": 8,
    "linear_num_heads": 4,
    "shared_expert_intermediate_size": 16,
    "use_mamba_kernels": False,
    "attention_window_size": 16,
    "block_size": 16,
}
"""Sizes of a tiny model of any architecture; each configuration takes those that it has."""

_NEEDS: dict[str, dict[str, Any]] = {
    "Bamba": {"attn_layer_indices": [1]},
    "FalconH1": {"mamba_n_heads": 4},
    "GraniteMoeHybrid": {
        "layer_types": ["mamba", "attention"],
        "num_local_experts": 0,
        "shared_intermediate_size": 32,
    },
    "Jamba": {"attn_layer_offset": 1, "attn_layer_period": 2, "num_experts": 2},
    "Lfm2": {"layer_types": ["conv", "full_attention"]},
    "Lfm2Moe": {"layer_types": ["conv", "full_attention"]},
    "Mamba2": {"num_heads": 8},
    "RecurrentGemma": {"num_hidden_layers": 3},
    "Rwkv": {"attention_hidden_size": 32},
    "xLSTM": {"hidden_size": 32, "embedding_dim": 32, "num_heads": 4},
}
"""What an architecture needs beside."""

_STATES = re.compile(r"conv_state|recurrent_state|ssm_state|LightningAttention|rwkv|mLSTM", re.I)


def _stateful() -> dict[str, str]:
    """Text configurations, without `Config`, of all models whose code names a state."""
    from transformers.models.auto.configuration_auto import (
        CONFIG_MAPPING_NAMES,
        model_type_to_module_name,
    )
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    found = {}
    models = Path(transformers.__file__).parent / "models"
    for kind, model in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        name = CONFIG_MAPPING_NAMES.get(kind, "").removesuffix("Config")
        # Without an image encoder, if there is such a configuration.
        if f"{kind}_text" in CONFIG_MAPPING_NAMES or not name:
            continue
        for path in (models / model_type_to_module_name(kind)).glob("modeling_*.py"):
            if _STATES.search(path.read_text("utf-8")):
                found[name] = model
    return found


STATEFUL = _stateful()
"""A state along the row: packing is taken only where it is not carried over."""


def _stateful_config(name: str) -> Any:
    """A tiny configuration of any stateful architecture: a layer with a state, one without."""
    kind = getattr(transformers, f"{name}Config")
    whole = kind()
    settings = {key: value for key, value in _ANY.items() if key in whole.to_dict()}
    needs = _NEEDS.get(name, {})
    for key in ("layer_types", "layers_block_type"):
        settings.pop(key, None)
        kinds = list(dict.fromkeys(getattr(whole, key, None) or ()))
        if kinds and key in getattr(kind, "__dataclass_fields__", ()) and key not in needs:
            apart = [k for k in kinds if k == "hybrid" or ("attention" in k and "linear" not in k)]
            states = [k for k in kinds if k not in (*apart, "moe", "mlp")]
            assert states or "hybrid" in apart, f"{name} needs layer types with a state"
            # Two hybrid layers, as they share weights.
            settings[key] = states[:1] + apart[-1:] * (2 if "hybrid" in apart else 1)
            settings["num_hidden_layers"] = len(settings[key])
    return kind(**settings | needs)


OTHERS: dict[str, dict[str, Any]] = {
    "Falcon": {**_SMALL, "num_attention_heads": 4},
    "Bloom": {"vocab_size": 97, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "GptOss": {**_COMMON, "num_local_experts": 4},
    "OPT": {
        **_SMALL,
        "ffn_dim": 64,
        "num_attention_heads": 4,
        "word_embed_proj_dim": 32,
        "max_position_embeddings": 512,
    },
}
"""Attention that heeds positions in some versions of transformers and not in others."""

ALL = [*PLAIN, *STATEFUL, *OTHERS]


def tiny(name: str) -> Any:
    """A model with weights so large that what leaks is seen."""
    model = STATEFUL.get(name, f"{name.removesuffix('Text')}ForCausalLM")
    kind = getattr(transformers, model, None)
    config = getattr(transformers, f"{name}Config", None)
    if kind is None or config is None:
        pytest.skip(f"the installed transformers has no {name}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        settings = {**PLAIN, **OTHERS}
        made = _stateful_config(name) if name in STATEFUL else config(**settings[name])
        model = kind(made).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(3)
    return model
