"""A 4-bit model has the same gradients after an evaluation as before it."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
pytest.importorskip("bitsandbytes", reason="pip install 'agenttuning-plugin[trl]'")

from evaluators.models.eval_mode import evaluation_mode  # noqa: E402
from evaluators.models.target import EvalTarget  # noqa: E402
from tests.support.tiny_models import llama  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:Skipping publisher trust check:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*gemv_4bit:UserWarning"),
]
IDS = torch.arange(5, 40)[None]


def qlora(tmp_path: Any) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    torch.manual_seed(3)
    llama(hidden_size=64).save_pretrained(tmp_path)
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    base = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=settings)
    adapter = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    return get_peft_model(base, adapter).train()


def gradient(model: Any) -> dict[str, Any]:
    model.zero_grad()
    model(input_ids=IDS, labels=IDS).loss.backward()
    named = model.named_parameters()
    return {name: p.grad.clone() for name, p in named if p.requires_grad}


def test_an_evaluation_leaves_the_gradients_of_four_bit_weights(
    tmp_path: Any, small_tokenizer: Any
) -> None:
    model = qlora(tmp_path)
    before = gradient(model)
    with evaluation_mode(EvalTarget(model, small_tokenizer)):
        model(input_ids=IDS)
    after = gradient(model)
    assert before
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_weights_repacked_by_an_earlier_evaluation_are_trainable_again(
    tmp_path: Any, small_tokenizer: Any
) -> None:
    model = qlora(tmp_path)
    before = gradient(model)
    model.eval()
    with torch.no_grad():
        model(input_ids=IDS)
    model.train()
    with evaluation_mode(EvalTarget(model, small_tokenizer)):
        pass
    after = gradient(model)
    # Repacking rounds the scales to bfloat16.
    assert all(torch.allclose(before[name], after[name], rtol=0.1, atol=1e-3) for name in before)
