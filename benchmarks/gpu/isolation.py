"""Whether packed documents give the logits that each gives alone, by attention and precision."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import product
from typing import Any

import torch

from agenttuning_plugin.training_data.collator import PackedCollator
from agenttuning_plugin.training_data.packing_check import leak_of
from benchmarks.gpu import models
from benchmarks.gpu.shapes import SHAPES
from benchmarks.gpu.training import Case, Save

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def measure_isolation(case: Case, folder: Any, device: str, save: Save) -> None:
    """Compare packed with single logits for each shape, attention and precision of a case.

    `difference` is the largest change of a logit relative to the largest logit; `joined` is the
    same for a model without document boundaries, which shows what a leak looks like; `leak` is
    `packing_check.leak_of`, which training refuses above 1.
    """
    found: list[dict[str, Any]] = []
    for attention, shape, name in product(case["attentions"], case["shapes"], TYPES):
        row = {"shape": shape, "attention": attention, "dtype": name}
        reason = _unavailable(attention, name, device)
        if not reason:
            try:
                row |= _differences(case, shape, attention, TYPES[name], device)
            except Exception as error:  # The other rows are still measured.
                reason = models.reason(error)
        found.append(row | ({"reason": reason} if reason else {}))
        save({"rows": found})
        models.release()


def _unavailable(attention: str, dtype: str, device: str) -> str:
    """Why a combination cannot run here, or ""."""
    if attention == "flash_attention_2" and find_spec("flash_attn") is None:
        return "flash_attn is not installed"
    if attention == "flash_attention_2" and dtype == "float32":
        return "FlashAttention has no float32"
    if attention != "sdpa" and attention != "eager" and device != "cuda":
        return "needs a GPU"
    return ""


def _differences(
    case: Case, shape: str, attention: str, dtype: torch.dtype, device: str
) -> dict[str, Any]:
    model = models.random_model(
        SHAPES[shape].config(case.get("vocabulary")),
        device,
        dtype=dtype,
        attention=attention,
        nf4=False,
    ).eval()
    size = model.config.vocab_size
    draw = torch.Generator().manual_seed(1)
    documents = [torch.randint(3, size, (n,), generator=draw) for n in case["documents"]]
    ids = torch.cat(documents).numpy()
    row = {"input_ids": ids, "labels": ids, "seq_lengths": case["documents"]}
    batch = PackedCollator.for_model(model)([row])
    del batch["labels"]
    packed = _logits(model, batch, device)
    joined = _logits(model, {"input_ids": batch["input_ids"]}, device)
    alone = torch.cat([_logits(model, {"input_ids": one[None]}, device) for one in documents])
    scale = float(alone.abs().max())
    later = slice(case["documents"][0], None)  # The first document has nothing before it.
    return {
        "difference": float((packed - alone).abs().max()) / scale,
        "joined": float((joined[later] - alone[later]).abs().max()) / scale,
        "leak": leak_of(model),
        "documents": len(documents),
        "tokens": len(ids),
    }


def _logits(model: Any, batch: dict[str, Any], device: str) -> torch.Tensor:
    given = {name: v.to(device) if hasattr(v, "to") else v for name, v in batch.items()}
    with torch.no_grad():
        return model(**given, use_cache=False).logits[0].float().cpu()
