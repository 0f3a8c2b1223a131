"""Which loss a run minimises, if it is not the negative log-likelihood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agenttuning_plugin.config.findings import Finding

_WHAT = "loss function"
_DFT = "dft: each trained token weighted by its own probability"


def recipe_loss(cfg: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the loss function of an Axolotl recipe."""
    if cfg.get("use_dft"):
        yield Finding(_WHAT, _DFT)
    if cfg.get("use_eaft"):
        yield Finding(_WHAT, "eaft: each trained token weighted by the entropy of its prediction")


def script_loss(args: Any, normalization: str) -> Iterator[Finding]:
    """Yield the loss function of a TRL script.

    Args:
        args: Its SFTConfig.
        normalization: `loss_normalization` of its section.
    """
    if getattr(args, "loss_type", None) == "dft":
        from trl.trainer import sft_trainer

        yield Finding(_WHAT, _DFT)
        # TRL 1.16 computes it itself; before, as a function that no micro-batch is averaged for.
        if normalization == "examples" and hasattr(sft_trainer, "dft_loss"):
            yield Finding(
                _WHAT,
                "loss_type: found dft with loss_normalization: examples, expected tokens, or TRL "
                "1.16: this TRL does not average it over micro-batches",
                "error",
            )
    elif smoothing := getattr(args, "label_smoothing_factor", 0):
        yield Finding(_WHAT, f"label smoothing of {smoothing:g}")
