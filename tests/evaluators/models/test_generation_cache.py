"""A model's cache is found whatever wraps the model, and its absence is said."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
transformers = pytest.importorskip("transformers")

from evaluators.models import cache_support  # noqa: E402
from evaluators.models.eval_mode import evaluation_mode  # noqa: E402
from evaluators.models.target import Decoding  # noqa: E402
from evaluators.models.token_model import TokenModel  # noqa: E402
from tests.support.tiny_models import (  # noqa: E402
    COMMON,
    llama,
    lora,
    mamba,
    prompt_tuned,
    subject_of,
)

ROWS = [[20 + number, *range(30, 42 + number)] for number in range(3)]


def compiles(graph: Any, inputs: Any) -> Any:
    raise AssertionError("an evaluation compiled a forward pass")


def whole(model: Any) -> Any:
    return torch.compile(model, backend=compiles)


def in_place(model: Any) -> Any:
    model.compile(backend=compiles)
    return model


def forward_only(model: Any) -> Any:
    model.forward = torch.compile(model.forward, backend=compiles)
    return model


def by_layers(model: Any) -> Any:
    layers = model.get_base_model().model.layers if hasattr(model, "peft_config") else None
    layers = model.model.layers if layers is None else layers
    for number, layer in enumerate(layers):
        layers[number] = torch.compile(layer, backend=compiles)
    return model


def adapter_around(model: Any) -> Any:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=True)
    return peft.get_peft_model(whole(model), config)


@pytest.mark.parametrize("make", [llama, lora])
@pytest.mark.parametrize("wrap", [whole, in_place, forward_only, by_layers, adapter_around])
def test_a_compiled_model_is_evaluated_with_its_cache_and_left_compiled(
    make: Callable[[], Any], wrap: Callable[[Any], Any]
) -> None:
    if make is lora and wrap is adapter_around:
        pytest.skip("an adapter around an adapter is no case")
    plain = subject_of(make)
    with evaluation_mode(plain):
        expected = TokenModel(plain.model, 0).generate(ROWS, Decoding(6), [])
    subject = subject_of(make)
    model = wrap(subject.model)
    subject = type(subject)(model, subject.tokenizer)
    with evaluation_mode(subject):
        tokens = TokenModel(model, 0)
        assert tokens.generate(ROWS, Decoding(6), []) == expected
        assert tokens._support is not None
        assert tokens._support.kind == "shared"
    with pytest.raises(Exception, match="an evaluation compiled"), torch.no_grad():
        model(input_ids=torch.tensor(ROWS[:1]), use_cache=False)  # Still compiled.


class Renamed(transformers.LlamaForCausalLM):  # type: ignore[misc, name-defined]
    """Calls its cache what nobody calls it yet."""

    def forward(
        self, input_ids: Any, attention_mask: Any = None, memory: Any = None, **_: Any
    ) -> Any:
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Renamed(transformers.LlamaConfig(**COMMON)), "takes none of the arguments cache"),
        (mamba, "takes none of|left padding"),
        (prompt_tuned, "virtual tokens"),
    ],
)
def test_a_model_without_a_cache_is_warned_of_once(
    make: Callable[[], Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache_support._warn_once.cache_clear()
    subject = subject_of(make)
    with caplog.at_level(logging.WARNING), evaluation_mode(subject):
        for _ in range(2):
            assert all(TokenModel(subject.model, 0).generate(ROWS[:1], Decoding(2), []))
    (record,) = [r for r in caplog.records if r.name.startswith("evaluators.")]
    message = record.getMessage()
    assert "without a key-value cache" in message
    assert re.search(reason, message)


def test_a_model_with_a_cache_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    cache_support._warn_once.cache_clear()
    subject = subject_of(llama)
    with caplog.at_level(logging.WARNING), evaluation_mode(subject):
        TokenModel(subject.model, 0).generate(ROWS, Decoding(2), [])
    assert not caplog.records
