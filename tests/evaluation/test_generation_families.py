"""Generation says what the model says of each row alone, for models with ways of their own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
transformers = pytest.importorskip("transformers")

from dataset_builders.errors import ConfigError  # noqa: E402
from evaluators.in_step import RankTokenModel  # noqa: E402
from evaluators.model_state import borrowed  # noqa: E402
from evaluators.subject import Decoding, Subject  # noqa: E402
from evaluators.token_model import TokenModel  # noqa: E402

VOCABULARY = 97
ENDS = list(range(10))
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
TURN = 48


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


MODELS = {
    "long_rope": (long_rope, "own"),
    "local_windows": (local_windows, "own"),
    "no_cache_given_back": (no_cache_given_back, "none"),
    "no_foreign_cache": (no_foreign_cache, "none"),
}


def made(make: Any) -> tuple[Any, Subject]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = make().eval()
        with torch.no_grad():  # Larger weights: answers differ, and none is a near tie.
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(3)
    return model, Subject(model, SimpleNamespace(padding_side="left", truncation_side="left"))


def alone(model: Any, row: Sequence[int], limit: int) -> list[int]:
    """Greedy decoding by its definition; `generate` itself keeps LongRoPE's void cache."""
    answer: list[int] = []
    while len(answer) < limit:
        ids = torch.tensor([[*row, *answer]])
        token = int(model(input_ids=ids, use_cache=False).logits[0, -1].argmax())
        if token in ENDS:
            break
        answer.append(token)
    return answer


def rows_of(seed: int, number: int) -> list[list[int]]:
    draw = random.Random(seed)
    lengths = [5, TURN - 3, TURN, TURN + 1, TURN + 20, 30, TURN - 8]
    return [[draw.randrange(10, VOCABULARY) for _ in range(n)] for n in lengths[:number]]


@pytest.mark.parametrize("kind", MODELS)
def test_a_batch_over_rounds_says_what_each_row_says_alone(kind: str) -> None:
    make, cache = MODELS[kind]
    model, subject = made(make)
    rows = rows_of(1, 7 if cache == "own" else 2)
    with borrowed(subject):
        tokens = TokenModel(model, 0)
        for _ in range(2):
            answers = tokens.generate(rows, Decoding(8), ENDS)
            assert answers == [alone(model, row, 8) for row in rows]
            assert any(answers)
            rows = [
                [*row, *answer, 11, 12, 13 + number]
                for number, (row, answer) in enumerate(zip(rows, answers, strict=True))
            ]
        assert tokens._support is not None
        assert tokens._support.kind == cache


def prompt_tuned() -> Any:
    peft = pytest.importorskip("peft")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    return peft.get_peft_model(
        transformers.LlamaForCausalLM(transformers.LlamaConfig(**COMMON)), config
    )


@pytest.mark.parametrize("make", [long_rope, prompt_tuned])
def test_a_batch_is_scored_as_each_row_alone(make: Any) -> None:
    model, subject = made(make)
    rows = rows_of(2, 5)
    with borrowed(subject):
        found = TokenModel(model, 0).score(rows)
        for row, scores in zip(rows, found, strict=True):
            ids = torch.tensor([row])
            output = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
            logits = output.logits[0, -len(row) :].log_softmax(-1)[:-1]
            expected = logits.gather(-1, ids[0, 1:, None])[:, 0]
            assert scores.logprobs.tolist() == pytest.approx(expected.tolist(), abs=1e-4)
            assert scores.likeliest.tolist() == logits.argmax(-1).tolist()


@pytest.mark.parametrize("targets", [["q_proj"], ["embed_tokens"]])
def test_an_unknown_token_is_refused_before_others_join_the_call(targets: list[str]) -> None:
    peft = pytest.importorskip("peft")
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**COMMON))
    nobody: Any = None
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=targets))
    tokens = RankTokenModel(adapted, 0, nobody, None)
    tokens._check(torch.tensor([[0, VOCABULARY - 1]]))
    with pytest.raises(ConfigError, match=f"found 0 to {VOCABULARY}, expected 0 to 96"):
        tokens._check(torch.tensor([[0, VOCABULARY]]))
