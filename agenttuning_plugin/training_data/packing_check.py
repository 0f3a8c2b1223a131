"""Test whether a model keeps the documents of a packed row apart.

Attention does if positions mark the beginning of a document. Layers that carry a state along the
row (Mamba, linear attention, short convolutions) do only if their kernel is given the
boundaries and respects them, which depends on the architecture, the installed versions and
patches, and the device. Otherwise nothing fails: the loss is that of documents that see each
other. So the model itself processes two packed rows that differ in their first document only,
and its output for the second one must not change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from agenttuning_plugin.training_data.collator import PackedCollator, mark_checked
from dataset_builders.errors import ConfigError
from evaluators.models.compiled import original, uncompiled
from evaluators.models.four_bit import keep_trainable

if TYPE_CHECKING:
    import torch

_FIRST, _SECOND = 24, 16
"""Tokens of the two documents."""

FUSED_KERNELS = tuple(f"lora_{part}_kernel" for part in ("mlp", "qkv", "o", "embedding"))
"""Axolotl's keys of fused LoRA kernels, which need a GPU."""


class PackingCheck(TrainerCallback):
    """Callback that rejects packed rows if the model would mix their documents.

    For either trainer; Axolotl's plugin adds it by itself.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Check the model in its training setup.

        Raises:
            ConfigError: See `check_packing`.
        """
        check_packing(rest["model"])


def check_packing(model: Any) -> None:
    """Check that no document of a packed row changes a model's output for the next one.

    Three forward passes of some 40 tokens, without gradients, in evaluation mode.

    Args:
        model: The model as it is trained: on its device, with its patches and adapters. Where
            its weights are spread over processes, all of them have to call this.

    Raises:
        ConfigError: It does, or the model refuses packed rows.
    """
    name = type(original(model)).__name__
    try:
        leak = leak_of(model)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        # Axolotl turns its fused LoRA kernels on by itself, on a CPU too.
        remedy = (
            f"; without a GPU set {', '.join(FUSED_KERNELS[:-1])} and {FUSED_KERNELS[-1]} to false"
            if "not compiled with CUDA" in reason
            else ""
        )
        raise ConfigError(
            f"sample_packing: {name} cannot read packed rows: {reason}{remedy}"
        ) from error
    if leak > 1:
        raise ConfigError(
            f"sample_packing: the installed {name} ({attention_of(model)} attention) does not keep "
            "the documents of a packed row apart: its output for one depends on the one before; "
            "train without packing, or install kernels that respect document boundaries"
        )
    mark_checked()


def attention_of(model: Any) -> str:
    """Return the name of a model's attention implementation."""
    return str(getattr(model.config, "_attn_implementation", None) or "default")


def leak_of(model: Any) -> float:
    """Measure how much a document changes the output for the next one, relative to rounding error.

    Returns:
        The largest change of a logit, divided by the limit; above 1 the documents are mixed.
    """
    import torch

    device = next(model.parameters()).device
    size = min(model.config.get_text_config().vocab_size, 1000)
    draw = torch.Generator().manual_seed(0)
    tokens = [torch.randint(1, size, (_FIRST,), generator=draw) for _ in range(2)]
    last = torch.randint(1, size, (_SECOND,), generator=draw)
    batches = [_packed(model, torch.cat([first, last]), device) for first in (*tokens, tokens[0])]
    modes = [(module, module.training) for module in model.modules()]
    keep_trainable(model)
    try:
        model.eval()
        with uncompiled(model), torch.no_grad(), _precision(model, device):
            rows = [model(**batch, use_cache=False).logits for batch in batches]
    finally:
        for module, mode in modes:
            module.training = mode
    one, other, again = (logits[0, _FIRST : _FIRST + _SECOND].float() for logits in rows)
    noise = float((one - again).abs().max())
    return float((one - other).abs().max()) / max(_limit(model, one), 4 * noise, 1e-30)


def _limit(model: Any, logits: torch.Tensor) -> float:
    """Return the change that rounding may cause.

    None at all where every token is computed alike, whatever stands before it: what is masked
    is multiplied by zero. Experts are another matter: which tokens share a matrix product
    depends on all of the row.
    """
    import torch

    step = torch.finfo(next(model.parameters()).dtype).eps if _has_experts(model) else 2**-23
    return float(logits.abs().max()) * (1e-5 if step < 1e-6 else 4 * step)


def _has_experts(model: Any) -> bool:
    values = model.config.get_text_config().to_dict().items()
    return any("experts" in name and isinstance(value, int) and value > 1 for name, value in values)


def _packed(model: Any, ids: torch.Tensor, device: Any) -> Mapping[str, Any]:
    row = {"input_ids": ids.numpy(), "labels": ids.numpy(), "seq_lengths": [_FIRST, _SECOND]}
    batch = PackedCollator.for_model(model)([row])
    del batch["labels"]  # The logits are asked for, and losses may leave them out.
    return {name: v.to(device) if hasattr(v, "to") else v for name, v in batch.items()}


def _precision(model: Any, device: Any) -> Any:
    """Use half precision for FlashAttention, which needs it; in training the trainer does this."""
    import torch

    full = next(model.parameters()).dtype == torch.float32
    flash = "flash" in attention_of(model)
    return torch.autocast(device.type, torch.bfloat16, enabled=flash and full)
