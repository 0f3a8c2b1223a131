"""Follow the bytes that are alive while code runs on torch's fake tensors.

Every operation of the forward and backward pass is seen, so that what autograd saves, recomputes
and frees is counted as it happens, for any architecture.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

ACTIVATIONS = "activations"
LOGITS = "logits"
GRADIENTS = "gradients"


def live_memory(known: Iterable[Any], vocabulary: int) -> Any:
    """Return a context that counts the bytes of tensors made and still alive within.

    Args:
        known: Tensors that are there already, such as weights; not counted.
        vocabulary: Last dimension of logits, which are counted apart.

    Returns:
        A torch dispatch mode with `peak`, bytes by part at the moment of most bytes while
        `recording` is true, and `claim(tensor, part)`, which counts a tensor as another part.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
        """Counts storages, each once, from the operation that makes it until it is freed."""

        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.now: Counter[str] = Counter()
            self.peak: Counter[str] = Counter()
            self.recording = True
            self.parts: weakref.WeakKeyDictionary[Any, list[str]] = weakref.WeakKeyDictionary()
            for tensor in known:
                self.parts[tensor.untyped_storage()] = []

        def __torch_dispatch__(
            self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            out = func(*args, **(kwargs or {}))
            for tensor in tree_leaves(out):
                if isinstance(tensor, torch.Tensor):
                    self._add(tensor)
            return out

        def _add(self, tensor: Any) -> None:
            storage = tensor.untyped_storage()
            if storage in self.parts:
                return
            logits = tensor.ndim > 1 and tensor.shape[-1] == vocabulary
            part = [LOGITS if logits else ACTIVATIONS]
            self.parts[storage] = part
            size = storage.nbytes()
            self.now[part[0]] += size
            weakref.finalize(storage, self._drop, part, size)
            if self.recording and self.now.total() > self.peak.total():
                self.peak = self.now.copy()

        def _drop(self, part: list[str], size: int) -> None:
            self.now[part[0]] -= size

        def claim(self, tensor: Any, part: str) -> None:
            """Count a tensor as another part from here on."""
            storage = tensor.untyped_storage()
            label = self.parts.get(storage)
            if label:
                size = storage.nbytes()
                self.now[label[0]] -= size
                self.now[part] += size
                label[0] = part

    return Live()
