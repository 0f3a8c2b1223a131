"""4-bit weights of bitsandbytes that stay trainable after an evaluation on a CPU."""

from __future__ import annotations

from typing import Any


def keep_trainable(model: Any) -> None:
    """Stop bitsandbytes from repacking the 4-bit weights of a model in training.

    On CPUs with AVX512-BF16, the first forward in evaluation mode repacks the weights for a kernel
    that has no backward and computes in bfloat16. They stay so in training, where gradients would
    no longer flow through them and nothing would say so (bitsandbytes 0.50, `Linear4bit.forward`
    and `matmul_4bit`). To be called before a model in training is put into evaluation mode; one
    without trainable parameters is left alone, as its evaluation is faster with repacked weights.

    Args:
        model: A `torch.nn.Module`, quantized or not.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False
            module.state_dict()  # Undoes what an earlier evaluation has repacked.
