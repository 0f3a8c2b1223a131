"""Read a run's shape from an Axolotl recipe, or from the arguments of a TRL trainer."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Literal

from agenttuning_plugin.estimates.shape import (
    ALL_LINEAR,
    LINEAR_LAYERS,
    Head,
    Method,
    Strategy,
    TrainingShape,
)

EPISODE_TOKENS = 1024
"""Tokens of an episode that a generating evaluator keeps in its cache, assumed."""

_GENERATING = ("agent_task", "refusal", "benchmark")
_SCORING = ("general_loss", "general_kl", "agent_loss", "replay")
_FUSED_HEAD = ("cut_cross_entropy", "liger_fused_linear_cross_entropy")


def shape_of(
    cfg: Mapping[str, Any], *, device: Literal["cuda", "cpu"] = "cuda", world: int = 1
) -> TrainingShape:
    """Return the shape of an Axolotl recipe, validated or as read from YAML.

    Args:
        cfg: The recipe; Axolotl's validated configuration is a mapping too.
        device: What it is to run on.
        world: Number of processes, one for each GPU.
    """
    adapter = cfg.get("adapter")
    method: Method = adapter if adapter in ("lora", "qlora") else "full"
    dtype = _dtype(cfg, device)
    mixed = dtype if dtype != "float32" else None
    strategy = _strategy(cfg, world)
    targets = cfg.get("lora_target_modules")
    if cfg.get("lora_target_linear") or not targets:
        targets = [LINEAR_LAYERS]
    optimizer = str(
        getattr(cfg.get("optimizer"), "value", cfg.get("optimizer") or "adamw_torch_fused")
    )
    return TrainingShape(
        method=method,
        micro_batch=int(cfg.get("micro_batch_size") or 1),
        sequence_len=int(cfg.get("sequence_len") or 2048),
        accumulation=int(cfg.get("gradient_accumulation_steps") or 1),
        dtype=dtype,
        autocast=mixed,
        # Axolotl loads them in float32, and casts them back for adapters; DeepSpeed and FSDP
        # have one type.
        head_dtype="float32" if method == "full" and strategy in ("none", "ddp") else None,
        rank=int(cfg.get("lora_r") or 8),
        targets=(targets,) if isinstance(targets, str) else tuple(targets),
        dropout=float(cfg.get("lora_dropout") or 0.0),
        quantize_experts=bool(cfg.get("quantize_moe_experts")),
        checkpointing=_checkpoints(cfg),
        optimizer=optimizer,
        head=_head(cfg),
        attention=_attention(cfg),
        packed=bool(cfg.get("sample_packing")),
        strategy=strategy,
        world=world,
        offload=_offloads(cfg),
        device=device,
        **_evaluation(cfg),
    )


def shape_of_arguments(
    args: Any,
    *,
    max_length: int,
    peft_config: Any = None,
    quantization: Any = None,
    packing: bool = False,
    section: Mapping[str, Any] | None = None,
    device: Literal["cuda", "cpu"] = "cuda",
    world: int | None = None,
) -> TrainingShape:
    """Return the shape of a TRL run.

    `TrainingRun.attach` keeps adapters in float32, which TRL casts to bfloat16 on a quantized
    model; not with DeepSpeed or FSDP, see `restore_adapter_precision`.

    Args:
        args: TRL's SFTConfig, or another `TrainingArguments`.
        max_length: Tokens of a row.
        peft_config: PEFT's LoraConfig, if adapters are trained.
        quantization: transformers' BitsAndBytesConfig, if weights are quantized.
        packing: Whether rows are packed.
        section: The section `agenttuning`, for its evaluators.
        device: What it is to run on.
        world: Number of processes; by default the arguments'.
    """
    four_bit = bool(getattr(quantization, "load_in_4bit", False))
    targets = getattr(peft_config, "target_modules", None) or ALL_LINEAR
    options = getattr(args, "model_init_kwargs", None) or {}
    mixed = "bfloat16" if args.bf16 else "float16" if args.fp16 else None
    number = args.world_size if world is None else world
    written = {"deepspeed": args.deepspeed, "fsdp_config": args.fsdp or None}
    strategy = _strategy(written, number)
    return TrainingShape(
        method=("qlora" if four_bit else "lora") if peft_config else "full",
        micro_batch=args.per_device_train_batch_size,
        sequence_len=max_length,
        accumulation=args.gradient_accumulation_steps,
        dtype=str(options.get("dtype") or "auto").removeprefix("torch."),
        autocast=mixed,
        rank=getattr(peft_config, "r", 8),
        targets=(targets,) if isinstance(targets, str) else tuple(sorted(targets)),
        dropout=float(getattr(peft_config, "lora_dropout", 0.0)),
        adapter_dtype="bfloat16" if four_bit and strategy not in ("none", "ddp") else "float32",
        double_quantization=bool(getattr(quantization, "bnb_4bit_use_double_quant", True)),
        checkpointing=bool(args.gradient_checkpointing),
        optimizer=str(getattr(args.optim, "value", args.optim)),
        head=_trl_head(args),
        attention=str(options.get("attn_implementation") or "sdpa"),
        packed=packing,
        strategy=strategy,
        world=number,
        device=device,
        **_evaluation({"agenttuning": section or {}, "sequence_len": max_length}),
    )


def _trl_head(args: Any) -> Head:
    if getattr(args, "use_liger_kernel", False):
        return "fused"
    loss = getattr(args, "loss_type", None)
    if loss is None:
        return "full"
    from packaging.version import Version  # TRL needs it

    # From 1.15 on TRL's trainer computes every loss from tiles of the logits.
    tiles = Version(version("trl")) >= Version("1.15")
    return "chunked" if tiles or "chunked" in loss else "full"


def _dtype(cfg: Mapping[str, Any], device: str) -> str:
    """Type of the loaded weights: `auto` is bf16 on a GPU that has it, as recent ones do."""
    if cfg.get("bf16") in (True, "full") or cfg.get("bfloat16"):
        return "bfloat16"
    if cfg.get("fp16") or cfg.get("float16"):
        return "float16"
    if cfg.get("bf16") == "auto":
        return "bfloat16" if device == "cuda" else "float16"
    return "float32"


def _checkpoints(cfg: Mapping[str, Any]) -> bool:
    fsdp = cfg.get("fsdp_config") or {}
    return bool(cfg.get("gradient_checkpointing") or fsdp.get("activation_checkpointing"))


def _offloads(cfg: Mapping[str, Any]) -> bool:
    fsdp = cfg.get("fsdp_config") or {}
    zero = cfg.get("deepspeed") if isinstance(cfg.get("deepspeed"), Mapping) else {}
    stage = (zero or {}).get("zero_optimization") or {}
    return bool(fsdp.get("offload_params") or stage.get("offload_param"))


def _head(cfg: Mapping[str, Any]) -> Head:
    if any(cfg.get(key) for key in _FUSED_HEAD):
        return "fused"
    return "chunked" if cfg.get("chunked_cross_entropy") else "full"


def _attention(cfg: Mapping[str, Any]) -> str:
    if cfg.get("flash_attention"):
        return "flash_attention_2"
    return str(cfg.get("attn_implementation") or "sdpa")


def _strategy(cfg: Mapping[str, Any], world: int) -> Strategy:
    if world < 2:
        return "none"
    if cfg.get("fsdp_config") or cfg.get("fsdp"):
        return "fsdp2"
    zero = cfg.get("deepspeed")
    if isinstance(zero, Mapping):
        stage = int((zero.get("zero_optimization") or {}).get("stage") or 0)
    else:
        stage = 3 if "zero3" in str(zero) else 2 if zero else 0
    return "zero3" if stage == 3 else "zero2" if stage else "ddp"


def _evaluation(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens of evaluation's largest passes, from the section's evaluators."""
    section = cfg.get("agenttuning") or {}
    evaluators = section.get("evaluators") or []
    length = int(cfg.get("sequence_len") or 2048)
    rows = [each.get("batch_size") or 16 for each in evaluators if each["type"] in _GENERATING]
    scores = any(each["type"] in _SCORING for each in evaluators)
    return {
        "scored_tokens": max(length, 2048) if scores else 0,
        "cached_tokens": min(65536, max(rows, default=0) * EPISODE_TOKENS),
    }
