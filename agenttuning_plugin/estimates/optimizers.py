"""Memory of optimizers: states that stay, and temporary tensors of a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_BLOCK = 256  # elements that share a scale in 8-bit states (bitsandbytes, torchao)
_SMALL = 4096  # bitsandbytes keeps states of smaller tensors in 32 bits
_FLOAT32 = 4


@dataclass(frozen=True)
class Weight:
    """A parameter: its shape, bytes of an element, and whether it is trained."""

    name: str
    shape: tuple[int, ...]
    itemsize: int
    trained: bool
    four_bit: bool = False

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes as loaded, before quantization."""
        return self.numel * self.itemsize


def state_bytes(optimizer: str, trained: Sequence[Weight]) -> int:
    """Return the bytes of an optimizer's states.

    AdamW keeps two moments: torch's in the parameter's type, bitsandbytes' `32bit` in float32,
    8-bit ones in a byte each with a float32 scale per 256 elements. Lion and SGD with
    momentum keep one. Adafactor keeps a float32 row and a column of each matrix (Shazeer and
    Stern 2018, without its first moment, as transformers sets it). Others count as torch's AdamW.
    """
    name = optimizer.lower()
    if "adafactor" in name:
        return sum(_factored(weight) for weight in trained)
    moments = 1 if "lion" in name or name in {"sgd", "rmsprop", "adagrad"} else 2
    return moments * sum(_moment(name, weight) for weight in trained)


def step_bytes(optimizer: str, trained: Sequence[Weight], device: str) -> int:
    """Return the bytes of an optimizer step's temporary tensors.

    torch's fused AdamW and bitsandbytes' update in place. Otherwise on a GPU torch updates all
    parameters at once, with one temporary tensor each; on a CPU one by one, with two.
    Adafactor has three float32 ones of a parameter at a time: gradient, its square and update.
    """
    name = optimizer.lower()
    if not trained or "fused" in name or "bnb" in name or "paged" in name or name == "sgd":
        return 0
    largest = max(trained, key=lambda weight: weight.numel)
    if "adafactor" in name or "bit" in name:
        return 3 * _FLOAT32 * largest.numel
    if device == "cuda":
        return sum(weight.nbytes for weight in trained)
    return 2 * largest.nbytes


def is_known(optimizer: str) -> bool:
    """Whether `state_bytes` has a rule for an optimizer, not only AdamW's as a stand-in."""
    names = ("adam", "adafactor", "lion", "sgd", "rmsprop", "adagrad")
    return any(name in optimizer.lower() for name in names)


def _moment(name: str, weight: Weight) -> int:
    """Bytes of one moment of a parameter."""
    if "4bit" in name and weight.numel >= _SMALL:
        return weight.numel // 2 + _FLOAT32 * math.ceil(weight.numel / 128)
    if "8bit" in name or "8_bit" in name:
        if weight.numel >= _SMALL:
            return weight.numel + _FLOAT32 * math.ceil(weight.numel / _BLOCK)
        return _FLOAT32 * weight.numel
    if "paged" in name or "32bit" in name or "bnb" in name:
        return _FLOAT32 * weight.numel
    return weight.nbytes


def _factored(weight: Weight) -> int:
    if len(weight.shape) < 2:
        return _FLOAT32 * weight.numel
    *outer, rows, columns = weight.shape
    return _FLOAT32 * math.prod(outer) * (rows + columns)
