"""Check that evaluation shows tools as training does, and that the device suits the recipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agenttuning_plugin.config.findings import Finding
from agenttuning_plugin.config.recipe import AgentTuningSection
from dataset_builders.mixing.preparation import Encoding


def check_tool_form(
    section: AgentTuningSection, tokenizer: Any, encoding: Encoding
) -> Iterator[Finding]:
    """Warn of rows with calls as text under a template that evaluators let write them natively.

    Args:
        section: The recipe's section.
        tokenizer: The run's tokenizer.
        encoding: Settings of the run's rows.
    """
    from evaluators.models.local_calls import LocalCalls

    if not any(spec.calls_as_text for spec in section.agent):
        return
    calls = LocalCalls(tokenizer, encoding.end_of_turn)
    if not calls.as_text:
        detail = (
            f"agent: calls_as_text: found true, expected false: the chat template writes calls "
            f"({calls.spelling.name}), and evaluators show them so"
        )
        yield Finding("tool calls", detail, "warning")


def check_kernels(cfg: Any) -> Iterator[Finding]:
    """Warn of fused LoRA kernels, which Axolotl turns on by itself, where there is no GPU.

    Args:
        cfg: The recipe as Axolotl has validated it.
    """
    import torch

    from agenttuning_plugin.training_data.packing_check import FUSED_KERNELS

    on = [name for name in FUSED_KERNELS if cfg.get(name)]
    if on and not torch.cuda.is_available():
        detail = f"{', '.join(on)}: found no GPU, which they need: set them to false to train here"
        yield Finding("device", detail, "warning")
