"""Generation says what the model says of each row alone, for models with ways of their own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
transformers = pytest.importorskip("transformers")

from evaluators.models.eval_mode import evaluation_mode  # noqa: E402
from evaluators.models.target import Decoding  # noqa: E402
from evaluators.models.token_model import TokenModel  # noqa: E402
from tests.support.tiny_models import (  # noqa: E402
    COMMON,
    ENDS,
    TURN,
    VOCABULARY,
    local_windows,
    long_rope,
    no_cache_given_back,
    no_foreign_cache,
    prompt_tuned,
    subject_of,
)

MODELS = {
    "long_rope": (long_rope, "own"),
    "local_windows": (local_windows, "own"),
    "no_cache_given_back": (no_cache_given_back, "none"),
    "no_foreign_cache": (no_foreign_cache, "none"),
}


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
    subject = subject_of(make)
    model = subject.model
    rows = rows_of(1, 7 if cache == "own" else 2)
    with evaluation_mode(subject):
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


@pytest.mark.parametrize("make", [long_rope, prompt_tuned])
def test_a_batch_is_scored_as_each_row_alone(make: Any) -> None:
    subject = subject_of(make)
    model = subject.model
    rows = rows_of(2, 5)
    with evaluation_mode(subject):
        found = TokenModel(model, 0).score(rows)
        for row, scores in zip(rows, found, strict=True):
            ids = torch.tensor([row])
            output = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
            logits = output.logits[0, -len(row) :].log_softmax(-1)[:-1]
            expected = logits.gather(-1, ids[0, 1:, None])[:, 0]
            assert scores.logprobs.tolist() == pytest.approx(expected.tolist(), abs=1e-4)
            assert scores.likeliest.tolist() == logits.argmax(-1).tolist()


def test_experts_trained_with_the_routers_loss_say_what_they_say_without() -> None:
    def experts() -> Any:
        options = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
        config = transformers.Qwen3MoeConfig(**COMMON, **options, head_dim=8)
        return transformers.Qwen3MoeForCausalLM(config)

    subject, rows = subject_of(experts), rows_of(3, 3)
    answers = []
    for asked in (False, True):
        subject.model.config.output_router_logits = asked
        with evaluation_mode(subject):
            answers.append(TokenModel(subject.model, 0).generate(rows, Decoding(8), ENDS))
        assert subject.model.config.output_router_logits is asked
    assert answers[0] == answers[1]
    assert any(answers[0])
