"""Tiny models with random weights of the architectures that people train on packed rows."""

from __future__ import annotations

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
_OF_STATES = {"mamba_n_groups": 1, "mamba_d_state": 8, "mamba_d_head": 8, "mamba_chunk_size": 8}
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

STATEFUL: dict[str, dict[str, Any]] = {
    "Qwen3Next": {**_COMMON, **_LINEAR, **_EXPERTS, "shared_expert_intermediate_size": 16},
    "Qwen3_5Text": {**_COMMON, **_LINEAR},
    "OlmoHybrid": {**_COMMON, **_LINEAR},
    "Lfm2": {**_COMMON, "layer_types": ["conv", "full_attention"]},
    "Lfm2Moe": {
        **_COMMON,
        **_EXPERTS,
        "layer_types": ["conv", "full_attention"],
        "num_dense_layers": 1,
    },
    "Mamba": {**_SMALL, "state_size": 8},
    "FalconMamba": {**_SMALL, "state_size": 8},
    "Mamba2": {**_SMALL, "state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 2},
    "FalconH1": {**_COMMON, **_OF_STATES, "mamba_d_ssm": 32, "mamba_n_heads": 4},
    "Bamba": {**_COMMON, **_OF_STATES, "mamba_n_heads": 8, "attn_layer_indices": [1]},
    "GraniteMoeHybrid": {
        **_COMMON,
        **_OF_STATES,
        "mamba_n_heads": 8,
        "layer_types": ["mamba", "attention"],
        "num_local_experts": 0,
        "shared_intermediate_size": 32,
    },
    "Jamba": {
        **_COMMON,
        "attn_layer_offset": 1,
        "attn_layer_period": 2,
        "num_experts": 2,
        "mamba_d_state": 8,
        "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
    },
    "Zamba2": {
        **_COMMON,
        "mamba_d_state": 8,
        "mamba_ngroups": 1,
        "n_mamba_heads": 8,
        "chunk_size": 8,
        "use_mamba_kernels": False,
        "layers_block_type": ["mamba", "hybrid"],
        "num_mem_blocks": 1,
    },
    "NemotronH": {
        **_COMMON,
        "layers_block_type": ["mamba", "attention"],
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "ssm_state_size": 8,
        "n_groups": 1,
        "chunk_size": 8,
        "use_mamba_kernels": False,
    },
    "RecurrentGemma": {
        **_COMMON,
        "num_hidden_layers": 3,
        "lru_width": 32,
        "attention_window_size": 16,
    },
    "Rwkv": {**_SMALL, "context_length": 64, "attention_hidden_size": 32},
    "xLSTM": {**_SMALL, "num_heads": 4, "chunk_size": 8},
    "MiniMax": {
        **_COMMON,
        "layer_types": ["linear_attention", "full_attention"],
        "num_local_experts": 2,
        "block_size": 16,
    },
}
"""A state along the row: packing is taken only where it is not carried over."""

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

ALL = {**PLAIN, **STATEFUL, **OTHERS}


def tiny(name: str) -> Any:
    """A model with weights so large that what leaks is seen."""
    kind = getattr(transformers, f"{name.removesuffix('Text')}ForCausalLM", None)
    config = getattr(transformers, f"{name}Config", None)
    if kind is None or config is None:
        pytest.skip(f"the installed transformers has no {name}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = kind(config(**ALL[name])).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(3)
    return model
