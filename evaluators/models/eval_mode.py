"""Evaluation mode for a model in training, restoring its state afterwards."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from evaluators.models.compiled import uncompiled
from evaluators.models.four_bit import keep_trainable
from evaluators.models.prefix_cache import weights_frozen
from evaluators.models.target import EvalTarget

_CHECKPOINTING = ("activation_checkpointing", "gradient_checkpointing")
"""Flags of layers that are recomputed in the backward pass. transformers renames them since
5.23; up to 5.24 the layers still have the old name."""


@contextmanager
def evaluation_mode(subject: EvalTarget) -> Iterator[None]:
    """Put the model into evaluation mode, and undo every change on exit.

    Restored, also after an exception: the training flag of every single module (a plain
    `train()` would switch modules that training keeps in evaluation mode), gradient
    checkpointing, `config.use_cache`, `config.output_router_logits`, the tokenizer's padding
    and truncation sides, and the random states of Python, NumPy and torch, so that training
    draws the same dropout masks with and without evaluation. Cached computations of the model
    are dropped.
    Compiled modules run as they were before compilation, see `uncompiled`.
    """
    import torch

    model, tokenizer = subject.model, subject.tokenizer
    training = [(module, module.training) for module in model.modules()]
    checkpointing = [
        (module, name, flag)
        for module in model.modules()
        for name in _CHECKPOINTING
        if isinstance(flag := getattr(module, name, None), bool)
    ]
    use_cache = getattr(model.config, "use_cache", None)
    experts = _routing_config(model)
    sides = tokenizer.padding_side, tokenizer.truncation_side
    states = _random_states()
    keep_trainable(model)
    try:
        model.eval()
        if experts is not None:
            experts.output_router_logits = False
        called = (model, None if subject.in_step is None else subject.in_step.module)
        with weights_frozen(), uncompiled(*called), torch.no_grad(), subject.autocast():
            yield
    finally:
        for module, flag in training:
            module.training = flag
        for module, name, flag in checkpointing:
            setattr(module, name, flag)
        if use_cache is not None:
            model.config.use_cache = use_cache
        if experts is not None:
            experts.output_router_logits = True
        tokenizer.padding_side, tokenizer.truncation_side = sides
        _restore_random_states(states)


def _routing_config(model: Any) -> Any:
    """Return a mixture of experts' configuration if it asks for the router's loss, or None.

    TRL turns it on for training. With a cache the router's loss fails: it expects a mask of the
    new tokens alone.
    """
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else None
    return config if getattr(config, "output_router_logits", False) else None


def _random_states() -> tuple[Any, ...]:
    import torch

    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def _restore_random_states(states: tuple[Any, ...]) -> None:
    import torch

    python, numpy, cpu, cuda = states
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state_all(cuda)
