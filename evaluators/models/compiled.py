"""Compiled models: inspect the original module, and evaluate uncompiled.

Every forward pass of an evaluation has a different shape, and each would be recompiled. The
weights are the same ones, so the original modules are called in place of their compiled forms.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def original(model: Any) -> Any:
    """Return the module inside `torch.compile`'s wrapper, or the model itself.

    The wrapper's signature is `(*args, **kwargs)`, which tells nothing of the model.
    """
    return getattr(model, "_orig_mod", model)


@contextmanager
def uncompiled(*models: Any) -> Iterator[None]:
    """Call the original modules within the context, and the compiled ones again after it.

    Covers `torch.compile(model)`, `module.compile()` and `module.forward =
    torch.compile(module.forward)`, on the models themselves and on any of their modules.

    Args:
        models: `torch.nn.Module`s; None is skipped.
    """
    undo: list[tuple[Any, str, Any]] = []
    modules = {id(m): m for model in models if model is not None for m in model.modules()}
    for module in modules.values():
        own = vars(module)
        if own.get("_compiled_call_impl") is not None:
            undo.append((module, "_compiled_call_impl", own["_compiled_call_impl"]))
            module._compiled_call_impl = None
        inner = own.get("_modules", {}).get("_orig_mod")
        if inner is not None:
            undo.append((module, "forward", own["forward"]))
            module.forward = inner.__call__
        elif hasattr(own.get("forward"), "_torchdynamo_orig_callable"):
            undo.append((module, "forward", own["forward"]))
            module.forward = own["forward"]._torchdynamo_orig_callable
    try:
        yield
    finally:
        for module, name, value in undo:
            setattr(module, name, value)
