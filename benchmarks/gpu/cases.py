"""The benchmark's parts: what each trains, and at most how many seconds it may take."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

Kind = Literal["speed", "isolation", "evaluators", "memory"]


@dataclass(frozen=True)
class Part:
    """One part, which runs in a process of its own.

    Attributes:
        name: Its name for `--only`, and in the results.
        kind: What it measures.
        seconds: Time that it is planned to take on an H200, imports included; its share of the
            whole time.
        case: Settings of the measurement.
    """

    name: str
    kind: Kind
    seconds: float
    case: dict[str, Any] = field(default_factory=dict)


ATTENTIONS = ("sdpa", "eager", "flash_attention_2", "flex_attention")
"""Attention implementations; the last is compiled, which takes most of a part's time."""


def parts(tiny: bool, attention: str | None = None) -> list[Part]:
    """Return the parts in the order of their importance, which is that of running.

    Args:
        tiny: Whether to use tiny shapes, which try the scripts on a CPU.
        attention: Attention of training, by default FlashAttention if it is installed.
    """
    found = "flash_attention_2" if find_spec("flash_attn") else "sdpa"
    train: dict[str, Any] = {
        "attention": attention or found,
        "batch": 1,
        "accumulation": 2,
        "steps": 4 if tiny else 7,
        "warmup": 2,
        "rounds": 2 if tiny else 4,
        "checkpointing": True,
        "rank": 8 if tiny else 64,  # the recipe's
    }
    if tiny:
        train["vocabulary"] = 4_096
    lengths = (512, 512) if tiny else (4_096, 8_192)
    llama, larger, qwen = (
        ("llama-tiny", "llama-tiny", "qwen3-tiny")
        if tiny
        else ("llama-2-7b", "llama-2-13b", "qwen3-0.6b")
    )
    small = ["llama-tiny", "qwen3-tiny"] if tiny else ["llama-small", "qwen3-small"]
    isolation = {
        "shapes": small,
        "attentions": list(ATTENTIONS),
        "documents": [37, 64, 20] if tiny else [700, 129, 1_900, 300],
        "vocabulary": 4_096,
    }
    qlora = {**train, "method": "qlora", "length": lengths[0]}
    full = {**train, "method": "full", "shape": qwen}
    evaluated = {"length": lengths[0], "every": 2 if tiny else 10, "steps": 4 if tiny else 20}
    evaluated |= {"tasks": 4 if tiny else 32, "new_tokens": 8 if tiny else 64}
    grid: dict[str, Any] = {"steps": 2, "batches": [1, 2]}
    grid |= {"ranks": [8] if tiny else [16, 64], "checkpointings": [True, False]}
    return [
        Part("qlora-7b", "speed", 105, {**qlora, "shape": llama}),
        Part("qlora-13b", "speed", 110, {**qlora, "shape": larger}),
        Part("full-0.6b", "speed", 75, {**full, "length": lengths[1]}),
        Part("isolation", "isolation", 45, isolation),
        Part("evaluators", "evaluators", 65, {**full, **evaluated}),
        Part("memory", "memory", 70, {**qlora, "shape": llama, **grid}),
    ]
