"""Merged models have the logits of the trained ones, for every kind of adapter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
pytest.importorskip("peft", reason="pip install 'agenttuning-plugin[trl]'")
transformers = pytest.importorskip("transformers")

from agenttuning_plugin.export import merge as merging  # noqa: E402
from agenttuning_plugin.export.merge import MergeError, merge_run  # noqa: E402
from agenttuning_plugin.export.weights import keep_quantized_layout  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings"),
    pytest.mark.filterwarnings("ignore:Model with `tie_word_embeddings"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`"),
    pytest.mark.filterwarnings("ignore:Skipping publisher trust check"),
]

Make = Callable[..., tuple[Path, Any]]
IDS = torch.tensor([[5, 9, 300, 17, 45, 2, 88, 120, 6, 7]])


def logits(model: Any, ids: Any = IDS) -> Any:
    keep_quantized_layout(model)
    with torch.no_grad():
        return model(input_ids=ids).logits


def load(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "rank pattern": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 16}},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "whole modules": {"modules_to_save": ["embed_tokens", "lm_head"], "target_modules": ["q_proj"]},
    "tokens": {"trainable_token_indices": [3, 4], "target_modules": ["q_proj"]},
    "added tokens": {
        "added": 2,
        "modules_to_save": ["embed_tokens", "lm_head"],
        "target_modules": ["q_proj"],
    },
    "4 bits": {"quantized": True},
    "4 bits, bfloat16": {"quantized": True, "dtype": "bfloat16"},
    "4 bits, dora": {"quantized": True, "use_dora": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_model_has_the_logits_of_the_trained_one(make_run: Make, kind: str) -> None:
    run, trained = make_run(**KINDS[kind])
    expected = logits(trained.float() if "bfloat16" in kind else trained)
    report = merge_run(run, dtype="float32", device="cpu")
    assert report.parity is not None
    assert report.parity.holds
    assert report.parity.source == "prompts of our own"
    merged = load(report.out)
    assert report.out == run / "merged"
    assert (logits(merged) - expected).abs().max() <= 1e-4 * expected.std()
    assert merged.dtype == torch.float32
    assert not getattr(merged.config, "quantization_config", None)


@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
def test_an_8_bit_base_is_merged_within_what_it_rounds(make_run: Make) -> None:
    run, trained = make_run(quantized=True, bits=8)
    report = merge_run(run, device="cpu")
    assert report.parity is not None
    expected = logits(trained)
    assert (logits(load(report.out)) - expected).abs().max() <= 0.1 * expected.std()


def test_experts_are_merged_and_those_of_a_4_bit_base_are_not_rounded(
    make_run: Make, small_tokenizer: Any, tmp_path: Path
) -> None:
    config = transformers.Qwen3MoeConfig(
        vocab_size=len(small_tokenizer),
        hidden_size=64,
        moe_intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_experts=4,
        num_experts_per_tok=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.Qwen3MoeForCausalLM(config).save_pretrained(tmp_path / "base")
    run, trained = make_run(tmp_path / "base", quantized=True)  # experts have adapters too
    report = merge_run(run, dtype="float32", device="cpu")
    expected = logits(trained)
    assert (logits(load(report.out)) - expected).abs().max() <= 1e-4 * expected.std()


def test_layers_that_were_not_quantised_keep_the_weights_of_the_base(
    make_run: Make, tiny_model_dir: Path
) -> None:
    run, _ = make_run(quantized=True)
    merged = load(merge_run(run, device="cpu").out)
    base = load(tiny_model_dir)
    names = [name for name, _ in base.named_parameters() if "proj" not in name]
    assert {"model.embed_tokens.weight", "model.norm.weight"} <= set(names)
    own, theirs = dict(merged.named_parameters()), dict(base.named_parameters())
    assert all(torch.equal(own[name], theirs[name]) for name in names)


def test_weights_of_another_type_stay_within_their_tolerance(make_run: Make) -> None:
    run, _ = make_run()
    default = merge_run(run, run.parent / "own", device="cpu")
    half = merge_run(run, run.parent / "half", dtype="bfloat16", device="cpu")
    assert (default.dtype, half.dtype) == ("float32", "bfloat16")
    assert default.parity is not None
    assert half.parity is not None
    assert default.parity.difference < half.parity.difference <= half.parity.tolerance
    config = json.loads((half.out / "config.json").read_text("utf-8"))
    assert config["dtype"] == "bfloat16"


def test_template_end_tokens_and_card_come_with_it(make_run: Make, small_tokenizer: Any) -> None:
    run, _ = make_run()
    out = merge_run(run, device="cpu").out
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert tokenizer.chat_template == small_tokenizer.chat_template
    generation = transformers.GenerationConfig.from_pretrained(out)
    ends = small_tokenizer.convert_tokens_to_ids(["<|im_end|>", "</s>"])
    assert generation.eos_token_id == ends
    card = (out / "README.md").read_text("utf-8")
    assert "library_name: transformers" in card
    assert f"agenttuning merge {run}" in card
    assert "largest difference" in card


def test_a_model_with_other_logits_is_not_written(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = make_run(quantized=True)
    right = merging.dequantized

    def wrong(model: Any) -> Any:
        model = right(model)
        with torch.no_grad():
            model.model.layers[0].mlp.down_proj.weight.add_(0.01)
        return model

    monkeypatch.setattr(merging, "dequantized", wrong)
    with pytest.raises(MergeError, match=r"tolerance .* nothing was written"):
        merge_run(run, device="cpu")
    assert not (run / "merged").exists()
    assert not list(run.glob(".*merging"))


def test_a_full_fine_tune_is_copied_with_template_and_card(
    tiny_model_dir: Path, small_tokenizer: Any, tmp_path: Path
) -> None:
    run = tmp_path / "full"
    model = load(tiny_model_dir)
    model.config.use_cache = False
    model.save_pretrained(run)
    small_tokenizer.save_pretrained(run)
    report = merge_run(run, tmp_path / "out")
    assert report.parity is None
    copied = load(report.out)
    assert torch.equal(logits(copied), logits(model))
    assert copied.config.use_cache
    assert (report.out / "chat_template.jinja").is_file()
    assert "All weights were trained" in (report.out / "README.md").read_text("utf-8")
