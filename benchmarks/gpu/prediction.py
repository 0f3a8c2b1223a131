"""Memory that `agenttuning_plugin.estimates` predicts for a benchmarked run."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from agenttuning_plugin.estimates.memory import estimate_memory
from agenttuning_plugin.estimates.recipe_shape import shape_of_arguments
from benchmarks.gpu import models
from benchmarks.gpu.shapes import SHAPES


def predict(
    case: dict[str, Any], args: Any, device: str, section: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the predicted peak of a case, and the estimator's description of it.

    Args:
        case: The case.
        args: The trainer's arguments.
        device: `cuda` or `cpu`.
        section: The `agenttuning` section, if evaluators run.

    Returns:
        `training_shape`, the fields of the estimator's `TrainingShape`; `predicted_bytes`, without
        the CUDA context, which torch does not count either; and its parts.
    """
    from transformers import BitsAndBytesConfig

    qlora = case["method"] == "qlora"
    nf4 = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    shape = shape_of_arguments(
        args,
        max_length=case["length"],
        peft_config=models.adapter(case["rank"]) if qlora else None,
        quantization=BitsAndBytesConfig(load_in_4bit=True, **nf4) if qlora else None,
        packing=True,
        section=section,
        device="cuda" if device == "cuda" else "cpu",
    )
    dtype = str(models.weight_type(case, device)).removeprefix("torch.")
    shape = replace(shape, dtype=dtype, attention=case["attention"])
    found = estimate_memory(SHAPES[case["shape"]].config(case.get("vocabulary")), shape)
    parts = {name: size for name, size in found.parts.items() if name != "framework"}
    return {
        "training_shape": asdict(shape),
        "predicted_bytes": sum(parts.values()),
        "predicted_parts": parts,
    }
