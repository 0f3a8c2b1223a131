"""Adapters of quantized models stay in float32 with TRL, as they do with Axolotl.

TRL's SFTTrainer casts them to bfloat16, whose steps near 0.01 are 6e-5: updates are rounded, and
initial weights are no longer the seed's. Axolotl leaves them as PEFT draws them. QLoRA (section 2)
computes in bfloat16 but does not say what the optimizer should update.
"""

from __future__ import annotations

import logging
from typing import Any

LOG = logging.getLogger("axolotl.agenttuning")

_SCRATCH = "agenttuning_first_weights"  # name of an adapter that is removed again


def restore_adapter_precision(trainer: Any) -> int:
    """Undo a trainer's cast of a quantized model's adapter to bfloat16, before training.

    Initial weights are drawn again from the trainer's seed, in float32. They are taken where they
    round to the weights found; others, such as those of a loaded adapter, are only widened.

    Args:
        trainer: A `transformers.Trainer` whose optimizer takes the parameters of `trainer.model`.

    Returns:
        The number of parameters changed. None where the model is not quantized or is sharded:
        DeepSpeed and FSDP need one dtype.
    """
    import torch

    model = trainer.model
    if not getattr(model, "peft_config", None) or not getattr(model, "is_quantized", False):
        return 0
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        return 0
    cast = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.dtype == torch.bfloat16
    }
    drawn = _first_weights(model, trainer.args.seed) if cast else {}
    for name, parameter in cast.items():
        first = drawn.get(name)
        if first is not None and torch.equal(first.to(torch.bfloat16), parameter.cpu()):
            parameter.data = first.to(parameter.device)
        else:
            parameter.data = parameter.data.float()
    if cast:
        LOG.info("adapter: %d weights of dtype bfloat16 widened to float32", len(cast))
    return len(cast)


def _first_weights(model: Any, seed: int) -> dict[str, Any]:
    """Return the weights that PEFT draws from a seed for the model's adapter, by parameter name."""
    import torch
    from peft import LoraConfig

    name = model.active_adapter
    config = model.peft_config[name]
    if type(config) is not LoraConfig or config.init_lora_weights is not True:
        return {}  # Others change the base's weights.
    if config.modules_to_save or getattr(config, "trainable_token_indices", None):
        return {}
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        model.add_adapter(_SCRATCH, config)
        return {
            key.replace(f".{_SCRATCH}.", f".{name}."): value.detach().float().cpu().clone()
            for key, value in model.named_parameters()
            if f".{_SCRATCH}." in key
        }
    finally:
        torch.set_rng_state(state)
        if _SCRATCH in model.peft_config:
            model.delete_adapter(_SCRATCH)
