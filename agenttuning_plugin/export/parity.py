"""Compare the logits of a merged model with those of the trained one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agenttuning_plugin.reports.rows import AGENT, GENERAL, MIX, open_rows
from dataset_builders.errors import AgentTuningError
from dataset_builders.manifest.store import read_manifest

TOLERANCES = {"float32": 1e-3, "float16": 1e-1, "bfloat16": 5e-1}
"""Largest difference of a logit, in standard deviations of the trained model's logits, by the type
that the merged weights are rounded to. On SmolLM2-135M with 4-bit weights: 2e-5, 6e-3 and 4e-2;
with the base before quantisation 2, with embeddings rounded to 4 bits 1. Random models with linear
attention reach 0.3 in bfloat16, so on a CPU the merge is also checked before rounding."""

_LONGEST = 512
_POSITIONS = 64
"""Positions of each row that are compared: its last ones, where a row has its answer."""

_PROMPTS = (
    "What is the capital of France?",
    "You have a table `orders` with columns id, customer and total. Write one SQL statement that "
    "returns the customer with the largest total.",
    "Write a haiku about the sea.",
    "List three prime numbers greater than 100 and explain how you checked them.",
)


@dataclass(frozen=True)
class Parity:
    """Result of a comparison.

    Attributes:
        rows: Number of rows.
        positions: Number of compared positions.
        source: What the rows are, such as "rows of the run".
        difference: Largest absolute difference of a logit.
        tolerance: Largest allowed difference.
        same_token: Share of positions at which the most probable token is the same.
    """

    rows: int
    positions: int
    source: str
    difference: float
    tolerance: float
    same_token: float

    @property
    def holds(self) -> bool:
        """Whether the difference is within the tolerance; false if it is not a number."""
        return self.difference <= self.tolerance

    def line(self) -> str:
        """Describe the result in one line."""
        return (
            f"logits at {self.positions} positions of {self.rows} {self.source}: "
            f"largest difference {self.difference:.2g}, tolerance {self.tolerance:.2g}; "
            f"most probable token the same at {self.same_token:.1%}"
        )


def sample_rows(run: Path, tokenizer: Any, count: int) -> tuple[list[list[int]], str]:
    """Return token ids to compare on: rows of the run if they are on disk, else prompts of ours.

    Args:
        run: Output folder of the run.
        tokenizer: Its tokenizer.
        count: Number of rows, half of them agent data.

    Returns:
        The rows, and what they are.
    """
    with suppress(AgentTuningError):  # no manifest, or one whose files are damaged
        stored = open_rows(read_manifest(run))
        parts = [] if stored is None else [stored.parts.get(key) for key in (AGENT, GENERAL, MIX)]
        sides = [part for part in parts if part is not None and "input_ids" in part.column_names]
        rows: list[list[int]] = []
        for number, part in enumerate(sides):
            share = (count - len(rows)) // (len(sides) - number)
            places = range(0, len(part), max(1, len(part) // max(1, share)))
            rows += [list(part[place]["input_ids"][:_LONGEST]) for place in list(places)[:share]]
        if rows:
            return rows, "rows of the run"
    return [_encode(tokenizer, text) for text in _PROMPTS[:count]], "prompts of our own"


def _encode(tokenizer: Any, text: str) -> list[int]:
    if tokenizer.chat_template:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
    return list(tokenizer(text, add_special_tokens=not tokenizer.chat_template)["input_ids"])


def logits_of(model: Any, rows: Sequence[Sequence[int]]) -> list[Any]:
    """Return the logits of each row's last positions, float32 on the CPU."""
    import torch

    found = []
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([list(row)], device=model.device)
            logits = model(input_ids=ids, use_cache=False).logits[0, -_POSITIONS:]
            found.append(logits.float().cpu())
    return found


def compare_logits(
    trained: Sequence[Any], merged: Sequence[Any], dtype: str, source: str
) -> Parity:
    """Compare logits of the same rows.

    Args:
        trained: Of the trained model, from `logits_of`.
        merged: Of the merged model.
        dtype: Type of the merged weights.
        source: What the rows are.
    """
    import torch

    first, second = torch.cat(list(trained)), torch.cat(list(merged))
    same = (first.argmax(-1) == second.argmax(-1)).double().mean()
    return Parity(
        rows=len(trained),
        positions=len(first),
        source=source,
        difference=float((first - second).abs().max()),
        tolerance=TOLERANCES[dtype] * float(first.std()),
        same_token=float(same),
    )
