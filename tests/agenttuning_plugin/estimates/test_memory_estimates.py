"""Parts of a memory estimate against what torch, PEFT and bitsandbytes really allocate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[trl]'")
peft = pytest.importorskip("peft", reason="pip install 'agenttuning-plugin[trl]'")
transformers = pytest.importorskip("transformers")

from agenttuning_plugin.estimates.activations import (  # noqa: E402
    Depths,
    depths_of,
    trace_training,
    with_layers,
)
from agenttuning_plugin.estimates.fake_model import build_model  # noqa: E402
from agenttuning_plugin.estimates.known_models import (  # noqa: E402
    model_config_of,
    stored_models,
)
from agenttuning_plugin.estimates.live_memory import live_memory  # noqa: E402
from agenttuning_plugin.estimates.memory import estimate_memory  # noqa: E402
from agenttuning_plugin.estimates.optimizers import Weight, state_bytes  # noqa: E402
from agenttuning_plugin.estimates.shape import LINEAR_LAYERS, TrainingShape  # noqa: E402
from agenttuning_plugin.estimates.weights import (  # noqa: E402
    communication_bytes,
    gradient_bytes,
    loaded_bytes,
    model_weights,
    static_parts,
)
from dataset_builders.errors import ConfigError  # noqa: E402

CPU = TrainingShape(device="cpu", dtype="float32", sequence_len=64, optimizer="adamw_torch")


def llama(layers: int = 2, **options: Any) -> Any:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": 300}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return transformers.LlamaConfig(**{**sizes, **heads, "num_hidden_layers": layers, **options})


@pytest.mark.parametrize("name", sorted({each["names"][0] for each in stored_models().values()}))
def test_known_models_have_the_published_number_of_parameters(name: str) -> None:
    found = model_weights(model_config_of(name), TrainingShape())
    assert found.parameters == stored_models()[name]["parameters"]


def test_adapters_of_llama_2_7b_are_those_of_qlora() -> None:
    # artidoro/qlora prints 159,907,840 trainable parameters for rank 64 on all linear layers.
    shape = TrainingShape(method="qlora", rank=64, targets=(LINEAR_LAYERS,))
    found = model_weights(model_config_of("meta-llama/Llama-2-7b-hf"), shape)
    assert sum(each.numel for each in found.trained) == 159_907_840
    assert {each.name for each in found.trained} == {"adapter"}


def test_a_mixture_counts_only_the_experts_of_a_token() -> None:
    found = model_weights(model_config_of("Qwen/Qwen3-30B-A3B"), TrainingShape())
    assert found.active == pytest.approx(3.35e9, rel=0.01)  # "A3B"


def test_a_target_that_no_module_has_is_an_error() -> None:
    shape = replace(CPU, method="lora", targets=("no_such_proj",))
    with pytest.raises(ConfigError, match="no_such_proj"):
        model_weights(llama(), shape)


@pytest.mark.parametrize("double", [False, True])
def test_four_bit_weights_take_what_bitsandbytes_allocates(double: bool) -> None:
    functional = pytest.importorskip("bitsandbytes").functional
    packed, state = functional.quantize_4bit(
        torch.randn(320, 160), quant_type="nf4", compress_statistics=double
    )
    scales = [state.absmax, *([state.state2.absmax] if double else [])]
    real = sum(tensor.nbytes for tensor in (packed, *scales))
    assert loaded_bytes(Weight("w", (320, 160), 4, False, True), double) == real


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("adamw_torch", lambda module, found: torch.optim.AdamW(found)),
        (
            "adafactor",
            lambda module, found: transformers.optimization.Adafactor(
                found, lr=1e-3, relative_step=False
            ),
        ),
        ("adamw_bnb_8bit", lambda module, found: module.optim.AdamW8bit(found)),
        ("paged_adamw_32bit", lambda module, found: module.optim.AdamW32bit(found)),
        ("lion_8bit", lambda module, found: module.optim.Lion8bit(found)),
    ],
)
def test_optimizer_states_are_those_of_the_real_optimizer(name: str, make: Any) -> None:
    module = pytest.importorskip("bitsandbytes")
    shapes = [(256, 96), (96,)]
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    optimizer = make(module, parameters)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    real = sum(
        value.nbytes
        for state in optimizer.state.values()
        for key, value in state.items()
        # Steps are one number, quantile maps one table for all parameters.
        if isinstance(value, torch.Tensor) and value.ndim and "qmap" not in key
    )
    weights = [Weight("w", shape, 4, True) for shape in shapes]
    assert state_bytes(name, weights) == real


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_trace_without_data_equals_one_with_data(attention: str, checkpointing: bool) -> None:
    shape = replace(CPU, attention=attention, checkpointing=checkpointing, micro_batch=2)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        llama(), dtype=torch.float32, attn_implementation=attention
    ).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda each: setattr(each, "grad", None))
    live = live_memory([*model.parameters(), *model.buffers()], 300)
    ids = torch.zeros(2, 64, dtype=torch.long)
    with live:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    fake = sum(trace_training(llama(), shape, to_layers=False).values())
    assert fake == pytest.approx(live.peak.total(), rel=0.01)


def gemma() -> Any:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": 300, "head_dim": 16}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    kinds = ["sliding_attention", "full_attention"] * 4
    return transformers.Gemma3TextConfig(
        **sizes, **heads, num_hidden_layers=8, sliding_window=16, layer_types=kinds
    )


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("config", "depths"), [(llama(9), (1, 2, 9)), (gemma(), (2, 4, 8))])
def test_two_depths_give_the_peak_of_all_layers(
    config: Any, depths: tuple[int, ...], checkpointing: bool
) -> None:
    shape = replace(CPU, checkpointing=checkpointing)
    found = depths_of(build_model(config, shape), config)
    assert found == Depths(*depths)
    guess = found.extrapolate(lambda layers: trace_training(with_layers(config, layers), shape))
    whole = trace_training(config, shape)
    # At these sizes a single hidden state is 2 % of the peak.
    assert sum(guess.values()) == pytest.approx(sum(whole.values()), rel=0.03)


def test_layers_that_follow_no_pattern_are_all_traced() -> None:
    config = llama(3)
    config.layer_types = ["full_attention", "full_attention", "sliding_attention"]
    assert depths_of(build_model(config, CPU), config) == Depths(3, 3, 3)


def test_recomputing_and_a_fused_head_save_what_they_leave_out() -> None:
    config = llama(8, vocab_size=5000)
    shape = replace(CPU, sequence_len=1024)
    peaks = {
        name: trace_training(config, replace(shape, **changes))
        for name, changes in {
            "plain": {},
            "recomputed": {"checkpointing": True},
            "chunked": {"head": "chunked"},
            "fused": {"head": "fused"},
        }.items()
    }
    logits = 1024 * 5000 * 4
    assert peaks["plain"]["logits"] >= 2 * logits
    assert peaks["fused"].get("logits", 0) < logits / 10
    assert peaks["chunked"]["logits"] <= logits
    assert peaks["recomputed"]["activations"] < peaks["plain"]["activations"] / 3


def test_a_packed_row_has_a_mask_unless_attention_takes_boundaries() -> None:
    shape = replace(CPU, checkpointing=True, sequence_len=512)
    plain, packed, flash = (
        sum(trace_training(llama(), each).values())
        for each in (
            shape,
            replace(shape, packed=True),
            replace(shape, packed=True, attention="flash_attention_2"),
        )
    )
    assert packed - plain >= 512 * 512
    assert flash == plain


def test_sharding_divides_what_it_says() -> None:
    whole = TrainingShape(dtype="bfloat16", optimizer="adamw_torch_fused")
    found = model_weights(llama(), whole)
    trained = sum(each.numel for each in found.weights)
    zero2, zero3, fsdp, ddp = (
        replace(whole, strategy=name, world=4) for name in ("zero2", "zero3", "fsdp2", "ddp")
    )
    assert static_parts(found, whole)["weights"] == 2 * trained
    assert static_parts(found, zero2)["weights"] == 2 * trained
    assert static_parts(found, zero2)["float32 copy"] == trained
    assert static_parts(found, zero2)["optimizer states"] == 2 * trained
    assert static_parts(found, zero3)["weights"] == trained // 2
    assert static_parts(found, fsdp)["optimizer states"] == trained
    assert gradient_bytes(found, fsdp) == trained // 2
    assert gradient_bytes(found, ddp) == communication_bytes(found, ddp) == 2 * trained
    assert communication_bytes(found, fsdp) == 2 * (2 * found.block + found.outer)
    assert 2 * found.block + found.outer == 2 * trained  # two layers


def test_the_peak_is_the_largest_moment() -> None:
    shape = replace(CPU, scored_tokens=512, cached_tokens=16384)
    found = estimate_memory(llama(), shape)
    assert found.total == found.peaks[found.peak] == max(found.peaks.values())
    assert found.evaluation == found.peaks["evaluation"]
    cache = 16384 * 2 * 2 * 2 * 16 * 4  # layers, keys and values, heads, head size, float32
    assert found.parts["key-value cache"] == cache
    assert estimate_memory(llama(), CPU).evaluation == 0
    longer = estimate_memory(llama(), replace(CPU, sequence_len=512))
    assert longer.total > estimate_memory(llama(), CPU).total


@pytest.mark.parametrize("family", ["Qwen/Qwen3.5-9B", "Qwen/Qwen3-30B-A3B", "openai/gpt-oss-20b"])
def test_other_architectures_are_traced(family: str) -> None:
    shape = TrainingShape(method="lora", sequence_len=128, targets=("q_proj",), checkpointing=True)
    config = with_layers(model_config_of(family), 4)
    found = trace_training(config, replace(shape, autocast="bfloat16"))
    assert found["logits"] >= 128 * config.vocab_size * 8
    assert found["activations"] > 0


def test_a_model_that_cannot_be_built_is_one_line() -> None:
    config = transformers.ViTConfig()
    with pytest.raises(ConfigError, match="vit: cannot be built"):
        estimate_memory(config, CPU)


def test_configurations_come_from_a_folder_or_are_stored(tmp_path: Any) -> None:
    llama().save_pretrained(tmp_path)
    assert model_config_of(str(tmp_path)).hidden_size == 64
    (tmp_path / "config.json").write_text("{", "utf-8")
    for name in (str(tmp_path), str(tmp_path / "none"), "nobody/no-such-model"):
        with pytest.raises(ConfigError, match="no configuration found") as caught:
            model_config_of(name)
        assert "\n" not in str(caught.value)
