"""An adapter keeps the first weights that PEFT drew; the curves in invariants/ show it in a run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from agenttuning_plugin.trainers.axolotl_adapter import drawn_weights, restore_weights

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[trl]'")
peft = pytest.importorskip("peft", reason="pip install 'agenttuning-plugin[trl]'")


def recipe(**keys: Any) -> Any:
    defaults = {"lora_model_dir": None, "expert_parallel_size": None, "tensor_parallel_size": 1}
    values = defaults | keys
    return SimpleNamespace(**values, get=values.get)


def adapted() -> Any:
    torch.manual_seed(5)
    base = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    return peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["0", "1"]))


def first_weights(model: Any) -> dict[str, Any]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def test_weights_that_are_drawn_again_are_put_back() -> None:
    model = adapted()
    before, drawn = first_weights(model), drawn_weights(recipe(), model)
    for module in model.modules():
        if hasattr(module, "reset_lora_parameters"):
            module.reset_lora_parameters("default", True)
    assert not torch.equal(first_weights(model)[next(iter(before))], before[next(iter(before))])
    assert restore_weights(model, drawn) == 2  # the zeros of B were not changed
    assert all(torch.equal(p, before[name]) for name, p in first_weights(model).items())


@pytest.mark.parametrize(
    "keys", [{"lora_model_dir": "x"}, {"expert_parallel_size": 2}, {"tensor_parallel_size": 2}]
)
def test_weights_of_others_are_left_alone(keys: dict[str, Any]) -> None:
    assert drawn_weights(recipe(**keys), adapted()) == {}
