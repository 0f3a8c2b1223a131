"""What a model has no vectors, no positions and no memory for, and what ends its answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
transformers = pytest.importorskip("transformers")

from dataset_builders.conversation import Conversation, Message  # noqa: E402
from dataset_builders.errors import ConfigError  # noqa: E402
from evaluators.models import cache_support  # noqa: E402
from evaluators.models.chat_model import LocalModel  # noqa: E402
from evaluators.models.target import Decoding, EvalTarget  # noqa: E402
from evaluators.models.token_model import TokenModel  # noqa: E402
from evaluators.runner import run_evaluator  # noqa: E402
from evaluators.tasks.general_loss import GeneralLossEvaluator  # noqa: E402
from evaluators.tasks.replay import ReplayEvaluator  # noqa: E402
from tests.support.tiny_models import ENDS, VOCABULARY, llama  # noqa: E402


@pytest.mark.parametrize("adapted", [False, True])
def test_tokens_of_another_model_are_refused_and_a_foreign_pad_is_not_looked_up(
    adapted: bool,
) -> None:
    model: Any = llama()
    if adapted:
        peft = pytest.importorskip("peft")
        model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["embed_tokens"]))
    tokens = TokenModel(model, VOCABULARY)
    assert len(tokens.generate([[5], [6, 7, 8]], Decoding(2), ENDS)) == 2
    for ask in (
        lambda row: tokens.generate([row], Decoding(2), ENDS),
        lambda row: tokens.next_logprobs([row], [3]),
        lambda row: tokens.score([row]),
    ):
        with pytest.raises(ConfigError, match="expected 0 to 96: the tokenizer is not the model's"):
            ask([5, VOCABULARY])


def test_a_generation_config_says_what_else_ends_an_answer(small_tokenizer: Any) -> None:
    number = small_tokenizer.convert_tokens_to_ids
    model = llama(vocab_size=len(small_tokenizer), tie_word_embeddings=False)
    other, word = number("<|im_start|>"), number("a")
    with torch.no_grad():
        model.model.norm.weight.fill_(1.0)
        model.lm_head.weight.zero_()
        model.lm_head.weight[[other, word]] = 1.0
    local = {}
    for ids in (None, other, [other, word]):
        model.generation_config.eos_token_id = ids
        local[str(ids)] = LocalModel(TokenModel(model, 0), small_tokenizer)._end_ids
    eos = small_tokenizer.eos_token_id
    assert local["None"] == [eos]
    # An ordinary word ends nothing: a config that nobody set names whatever has its number.
    assert local[str(other)] == local[str([other, word])] == [eos, other]


def test_what_is_longer_than_the_context_is_an_error_of_its_own(small_tokenizer: Any) -> None:
    config = transformers.GPT2Config(
        vocab_size=len(small_tokenizer), n_embd=32, n_layer=1, n_head=4, n_positions=64
    )
    subject = EvalTarget(transformers.GPT2LMHeadModel(config).eval(), small_tokenizer)
    talks = [
        Conversation.create([Message("user", "q"), Message("assistant", "a " * n, True)])
        for n in (3, 90)
    ]
    losses = [{"input_ids": [5] * n, "labels": [5] * n} for n in (64, 65)]
    for evaluator in (ReplayEvaluator(talks), GeneralLossEvaluator(losses)):
        evaluation = run_evaluator(evaluator, subject)
        errors = [record["error"] for record in evaluation.records if record["error"]]
        assert len(errors) == 1
        assert len(evaluation.records) == 2
        assert "64" in errors[0] or "long" in errors[0]


def test_files_that_are_kept_in_memory_leave_room_for_prefixes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    psutil = pytest.importorskip("psutil")
    available = SimpleNamespace(free=2**10, available=2**28)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available)
    # Two layers, two heads of eight float32 values, of keys and of values.
    assert cache_support.room_for_prefixes(llama()) == 2**26 // (2 * 2 * 2 * 8 * 4)
