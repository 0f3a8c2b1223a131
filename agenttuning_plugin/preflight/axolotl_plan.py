"""What an Axolotl recipe's run needs of a device, and what it writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agenttuning_plugin.config.findings import Finding
from agenttuning_plugin.estimates.devices import Device
from agenttuning_plugin.estimates.recipe_shape import shape_of
from agenttuning_plugin.preflight.device import Hardware
from agenttuning_plugin.preflight.saving import Saving

_GPU_KEYS = ("load_in_4bit", "load_in_8bit", "fsdp_config", "deepspeed", "flash_attention")
_PRECISION = ("bf16", "fp16", "bfloat16", "float16")


def hardware_of(
    cfg: Mapping[str, Any], precision: Mapping[str, Any], processes: int, device: Device | None
) -> Hardware:
    """Return what a recipe's run needs of a device.

    Args:
        cfg: The recipe as Axolotl has validated it.
        precision: From `precision_of`.
        processes: Processes that training is started with.
        device: The device to compare with; none: the one found here.
    """
    written = {**cfg, **precision}
    on_gpu = precision["bf16"] or processes > 1 or any(cfg.get(key) for key in _GPU_KEYS)
    return Hardware(
        str(cfg.get("base_model") or ""),
        lambda kind: shape_of(written, device=kind, world=processes),
        bool(on_gpu),
        device,
    )


def precision_of(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's keys of precision, before Axolotl fits them to this machine."""
    found = {key: cfg.get(key) for key in _PRECISION}
    return found | {"bf16": "auto" if found["bf16"] is None else found["bf16"]}


def check_precision(cfg: Mapping[str, Any], precision: Mapping[str, Any]) -> Iterator[Finding]:
    """Warn where `bf16: auto` becomes float16, as Axolotl has it where there is no bf16.

    Args:
        cfg: The recipe as Axolotl has validated and normalized it here.
        precision: From `precision_of`.
    """
    if precision["bf16"] == "auto" and not precision["fp16"] and cfg.get("fp16"):
        detail = "bf16: auto is float16 here (no bf16 GPU); for float32: bf16: false, fp16: false"
        yield Finding("precision", detail, "warning")


def saving_of(cfg: Mapping[str, Any]) -> Saving:
    """Return what a recipe's run writes."""
    interval = cfg.get("save_steps")
    if per_epoch := cfg.get("saves_per_epoch"):
        interval = 1 / float(per_epoch)
    if cfg.get("save_strategy") == "no":
        interval = None
    return Saving(
        Path(str(cfg.get("output_dir") or "model-out")),
        bool(cfg.get("resume_from_checkpoint") or cfg.get("auto_resume_from_checkpoints")),
        None if interval is None else float(interval),
        cfg.get("save_total_limit"),
    )
