"""A QLoRA adapter is float32 and starts from the seed's weights with TRL."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[trl]'")
peft = pytest.importorskip("peft")
pytest.importorskip("bitsandbytes", reason="pip install 'agenttuning-plugin[trl]'")

from agenttuning_plugin.training_data.adapter_precision import (  # noqa: E402
    restore_adapter_precision,
)

SEED = 5
pytestmark = pytest.mark.filterwarnings("ignore:Skipping publisher trust check:UserWarning")


@pytest.fixture
def base(tiny_model_dir: Any) -> Any:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    return AutoModelForCausalLM.from_pretrained(
        tiny_model_dir, quantization_config=BitsAndBytesConfig(load_in_4bit=True)
    )


def trainer_of(model: Any, **changes: Any) -> Any:
    """What SFTTrainer has after its cast."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    flags = {"is_deepspeed_enabled": False, "is_fsdp_enabled": False} | changes
    return SimpleNamespace(model=model, args=SimpleNamespace(seed=SEED), **flags)


def adapter(base: Any, **settings: Any) -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(SEED)
    config = peft.LoraConfig(r=4, target_modules="all-linear", **settings)
    model = peft.get_peft_model(base, config)
    return model, {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def trained(model: Any) -> dict[str, Any]:
    return {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}


def test_first_weights_are_those_that_peft_draws(base: Any) -> None:
    model, first = adapter(base)
    torch.manual_seed(9)
    state = torch.get_rng_state()
    assert restore_adapter_precision(trainer_of(model)) == len(first) == 28
    assert torch.equal(state, torch.get_rng_state())
    found = trained(model)
    assert found.keys() == first.keys()
    assert all(torch.equal(found[name], first[name]) for name in first)
    assert list(model.peft_config) == ["default"]
    assert {p.dtype for p in found.values()} == {torch.float32}


def test_other_weights_are_only_widened(base: Any) -> None:
    model, first = adapter(base, init_lora_weights=False)
    restore_adapter_precision(trainer_of(model))
    found = trained(model)
    rounded = {name: value.to(torch.bfloat16).float() for name, value in first.items()}
    assert all(torch.equal(found[name], rounded[name]) for name in first)


@pytest.mark.parametrize("flag", ["is_deepspeed_enabled", "is_fsdp_enabled"])
def test_a_sharded_model_keeps_one_dtype(base: Any, flag: str) -> None:
    model, _ = adapter(base)
    assert restore_adapter_precision(trainer_of(model, **{flag: True})) == 0
    assert {p.dtype for p in trained(model).values()} == {torch.bfloat16}


def test_a_model_that_is_not_quantized_is_left_alone(tiny_model_dir: Any) -> None:
    from transformers import AutoModelForCausalLM

    model, _ = adapter(AutoModelForCausalLM.from_pretrained(tiny_model_dir))
    assert restore_adapter_precision(trainer_of(model)) == 0
