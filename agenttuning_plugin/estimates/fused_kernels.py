"""A stand-in for a GPU kernel that saves less than the loop which replaces it elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

_RULE = "torch_chunk_gated_delta_rule"
_CHUNK = 64  # tokens of a chunk in flash-linear-attention's gated delta rule


@contextmanager
def fused_kernels(model: Any) -> Iterator[None]:
    """Run a model's linear attention as with flash-linear-attention's kernel.

    Without it transformers runs a loop in Python that keeps every intermediate tensor.
    """
    spaces = {type(module).__module__ for module in model.modules()}
    with ExitStack() as stack:
        for space in sorted(spaces):
            if hasattr(sys.modules[space], _RULE):
                stack.enter_context(patch.object(sys.modules[space], _RULE, _gated_delta_rule))
        yield


def _gated_delta_rule(query: Any, key: Any, value: Any, **settings: Any) -> tuple[Any, Any]:
    """Allocate what flash-linear-attention's `chunk_gated_delta_rule` allocates.

    It saves its inputs and a (T, 64) matrix per head; the backward pass makes the states of all
    chunks again, (T / 64, K, V) per head.
    """
    import torch

    class Rule(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, q: Any, k: Any, v: Any, g: Any, beta: Any) -> Any:
            ctx.save_for_backward(q, k, v, g, beta, v.new_empty(*v.shape[:-1], _CHUNK))
            return torch.empty_like(v)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            q, k, v, g, beta, _ = ctx.saved_tensors
            chunks = -(-v.shape[1] // _CHUNK)
            states = v.new_empty(v.shape[0], chunks, v.shape[2], k.shape[-1], v.shape[-1])
            gradients = tuple(torch.empty_like(each) for each in (q, k, v, g, beta))
            del states
            return gradients

    state = None
    if settings.get("output_final_state"):
        batch, _, heads, width = value.shape
        state = value.new_empty(batch, heads, key.shape[-1], width, dtype=torch.float32)
    apply: Callable[..., Any] = Rule.apply
    return apply(query, key, value, settings["g"], settings["beta"]), state
