"""An adapter that was trained with added tokens goes on the base without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
peft = pytest.importorskip("peft", reason="pip install 'agenttuning-plugin[trl]'")
transformers = pytest.importorskip("transformers")

from agenttuning_plugin.evaluation.model_loading import load_subject  # noqa: E402

SAVED = {"modules_to_save": ["embed_tokens", "lm_head"], "target_modules": ["q_proj"]}
FACTORS = {"target_modules": ["q_proj", "embed_tokens"]}


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
@pytest.mark.parametrize("options", [SAVED, FACTORS], ids=["saved", "factors"])
@pytest.mark.parametrize("added", [0, 2])
def test_an_adapter_brings_its_own_tokens(
    tiny_model_dir: Path, tmp_path: Path, options: dict[str, Any], added: int
) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    rows = model.get_input_embeddings().num_embeddings + added
    model.resize_token_embeddings(rows, mean_resizing=False)
    trained = peft.get_peft_model(
        model, peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **options)
    ).eval()
    trained.save_pretrained(tmp_path)
    found = load_subject(str(tiny_model_dir), str(tmp_path), device="cpu").model
    assert found.get_input_embeddings().weight.shape[0] == rows
    ids = torch.tensor([[1, 2, rows - 1, rows - 2, 3]])
    with torch.no_grad():
        assert torch.equal(found(input_ids=ids).logits, trained(input_ids=ids).logits)
