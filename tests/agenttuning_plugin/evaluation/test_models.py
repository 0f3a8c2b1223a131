"""Adapters on models: those that fit are loaded whole, the others are refused in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from agenttuning_plugin.evaluation.model_loading import load_subject  # noqa: E402
from dataset_builders.errors import AgentTuningError  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


def save_adapter(base: Path, out: Path, layers: int | None = None, **more: Any) -> Path:
    """An adapter of the base, or of a model like it with another number of layers."""
    config = transformers.AutoConfig.from_pretrained(base)
    config.num_hidden_layers = layers or config.num_hidden_layers
    model = transformers.AutoModelForCausalLM.from_config(config)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    if more:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|new-1|>", "<|new-2|>"]})
        model.resize_token_embeddings(len(tokenizer))
        tokenizer.save_pretrained(out)
    settings = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", **more)
    made = peft.get_peft_model(model, settings)
    made.peft_config["default"].base_model_name_or_path = str(base)
    made.save_pretrained(out)
    return out


def test_an_adapter_with_tokens_of_its_own_is_loaded(tiny_model_dir: Path, tmp_path: Path) -> None:
    trained = ["embed_tokens", "lm_head"]
    place = save_adapter(tiny_model_dir, tmp_path / "adapter", modules_to_save=trained)
    subject = load_subject(str(place))
    number = subject.tokenizer.convert_tokens_to_ids("<|new-2|>")
    with torch.no_grad():
        assert subject.model(torch.tensor([[number]])).logits.shape[-1] == number + 1


@pytest.mark.parametrize("layers", [1, 5])
def test_an_adapter_of_another_model_is_refused(
    tiny_model_dir: Path, tmp_path: Path, layers: int
) -> None:
    place = save_adapter(tiny_model_dir, tmp_path / "adapter", layers)
    with pytest.raises(AgentTuningError, match=r"LoRA weights, expected 4: it belongs to another"):
        load_subject(str(tiny_model_dir), str(place))


def test_a_broken_adapter_is_told_in_one_line(tiny_model_dir: Path, tmp_path: Path) -> None:
    place = save_adapter(tiny_model_dir, tmp_path / "adapter")
    assert load_subject(str(place)).model is not None
    (place / "adapter_model.safetensors").unlink()
    with pytest.raises(AgentTuningError, match=r"found no adapter_model\.safetensors or"):
        load_subject(str(place))
    (place / "adapter_config.json").write_text("{cut")
    with pytest.raises(AgentTuningError, match=r"adapter_config\.json: found no JSON object"):
        load_subject(str(place))


def test_a_model_without_a_tokenizer_is_told(tiny_model_dir: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_model_dir / name, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())
    with pytest.raises(AgentTuningError, match=r"one of: \S+"):
        load_subject(str(tmp_path))
