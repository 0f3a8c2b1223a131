"""Tiny models with random weights, of many families."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
transformers = pytest.importorskip("transformers")

from evaluators.models.target import EvalTarget  # noqa: E402

VOCABULARY = 97
ENDS = list(range(10))  # Random models are to end their answers at random places.
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}


CACHE_NAME = next(
    name
    for name in ("cache", "past_key_values")
    if name in inspect.signature(transformers.LlamaForCausalLM.forward).parameters
)
"""What the installed transformers calls the cache."""


def llama(**options: Any) -> Any:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**COMMON, **options}))


def lora() -> Any:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    return peft.get_peft_model(llama(), config)


def gpt2() -> Any:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=512
        )
    )


def mistral() -> Any:
    config = transformers.MistralConfig(**COMMON, sliding_window=8)
    return transformers.MistralForCausalLM(config)


def mamba() -> Any:
    config = transformers.MambaConfig(
        vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, state_size=4
    )
    return transformers.MambaForCausalLM(config)


class Stubborn(transformers.LlamaForCausalLM):  # type: ignore[misc, name-defined]
    """Fills a cache of its own instead of the one it is given."""

    def _with_own(self, name: str, given: Any, **rest: Any) -> Any:
        if not getattr(given, "mine", False):
            given = transformers.DynamicCache()
            given.mine = True
        return super().forward(**{name: given}, **rest)

    if CACHE_NAME == "cache":

        def forward(
            self, input_ids: Any, position_ids: Any = None, cache: Any = None, **rest: Any
        ) -> Any:
            ids = {"input_ids": input_ids, "position_ids": position_ids}
            return self._with_own("cache", cache, **ids, **rest)

    else:

        def forward(
            self, input_ids: Any, position_ids: Any = None, past_key_values: Any = None, **rest: Any
        ) -> Any:
            ids = {"input_ids": input_ids, "position_ids": position_ids}
            return self._with_own("past_key_values", past_key_values, **ids, **rest)


def subject_of(make: Callable[[], Any]) -> EvalTarget:
    """A model with weights so large that answers differ, and none is a near tie."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = make().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(3)
    return EvalTarget(model, SimpleNamespace(padding_side="left", truncation_side="left"))


TURN = 48
"""Tokens of a row beyond which `long_rope` has other angles."""


def long_rope() -> Any:
    """Phi-3's: other angles at all places of rows of more than `TURN` tokens."""
    scaling = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
        "original_max_position_embeddings": TURN,
    }
    config = transformers.Phi3Config(
        **COMMON, original_max_position_embeddings=TURN, rope_parameters=scaling
    )
    return transformers.Phi3ForCausalLM(config)


def local_windows() -> Any:
    """GPT-Neo, whose cache is a plain one and whose windows count columns."""
    config = transformers.GPTNeoConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=8,
        max_position_embeddings=512,
    )
    return transformers.GPTNeoForCausalLM(config)


def no_cache_given_back() -> Any:
    config = transformers.RecurrentGemmaConfig(
        **COMMON | {"num_hidden_layers": 3}, lru_width=32, attention_window_size=16, head_dim=8
    )
    return transformers.RecurrentGemmaForCausalLM(config)


def no_foreign_cache() -> Any:
    kinds = ["linear_attention", "full_attention"]
    config = transformers.MiniMaxConfig(
        **COMMON, head_dim=8, block_size=16, num_local_experts=2, layer_types=kinds
    )
    return transformers.MiniMaxForCausalLM(config)


def prompt_tuned() -> Any:
    peft = pytest.importorskip("peft")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    return peft.get_peft_model(llama(), config)
