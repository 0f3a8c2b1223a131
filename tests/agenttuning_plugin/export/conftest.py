"""Runs of tiny models as trainers leave them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
peft = pytest.importorskip("peft", reason="pip install 'agenttuning-plugin[trl]'")
transformers = pytest.importorskip("transformers")

from agenttuning_plugin.reports.model_record import write_model_record  # noqa: E402
from agenttuning_plugin.training_data.model_record import describe_model  # noqa: E402

NF4 = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "float32",
}


@pytest.fixture
def make_run(
    tiny_model_dir: Path, small_tokenizer: Any, tmp_path: Path
) -> Callable[..., tuple[Path, Any]]:
    """Makes an adapter's folder with the record of its base; gives the model that it belongs to."""

    def make(
        base: Path | None = None,
        *,
        quantized: bool = False,
        bits: int = 4,
        dtype: str = "float32",
        added: int = 0,
        **lora: Any,
    ) -> tuple[Path, Any]:
        source, options = base or tiny_model_dir, {}
        if quantized:
            pytest.importorskip("bitsandbytes", reason="pip install 'agenttuning-plugin[axolotl]'")
            settings = NF4 if bits == 4 else {"load_in_8bit": True}
            options["quantization_config"] = transformers.BitsAndBytesConfig(**settings)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            source, dtype=getattr(torch, dtype), **options
        )
        if added:
            rows = model.get_input_embeddings().num_embeddings + added
            model.resize_token_embeddings(rows, mean_resizing=False)
        torch.manual_seed(1)
        lora_settings = {"target_modules": "all-linear", "init_lora_weights": False, **lora}
        trained = peft.get_peft_model(
            model, peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, **lora_settings)
        )
        run = tmp_path / "run"
        content = describe_model(trained)
        trained.save_pretrained(run)
        small_tokenizer.save_pretrained(run)
        write_model_record(run, {**content, "end_of_turn": ["</s>"]})
        return run, trained.eval()

    return make
