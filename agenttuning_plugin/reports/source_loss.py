"""`loss_by_source.jsonl`: the training loss of each source and agent task, and how it is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LOSS_FILE = "loss_by_source.jsonl"
"""File in the output folder: one line per training log, the loss of each source."""


def read_losses(folder: Path) -> list[dict[str, Any]]:
    """Read the logged losses of a run, in order; damaged lines are skipped.

    Args:
        folder: The run's output folder.

    Returns:
        Rows with `step`, `loss` (the total) and `groups`: by name `loss`, `tokens` and `part`;
        empty if the run logged none.
    """
    path = folder / LOSS_FILE
    rows = []
    for line in path.read_text("utf-8").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # Cut off by a kill or a full disk.
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def loss_at(folder: Path, step: int) -> dict[str, Any] | None:
    """Return the first logged row whose steps include an optimizer step, from 0; None: none."""
    return next((row for row in read_losses(folder) if row["step"] > step), None)


def loss_line(row: Mapping[str, Any]) -> str:
    """Format a row as one line: the loss and the tokens of each group."""
    parts = [
        f"{name} {'none' if each['loss'] is None else format(each['loss'], '.4f')}"
        f" ({each['tokens']:,} tokens)"
        for name, each in row["groups"].items()
    ]
    return f"training loss logged at step {row['step']}: {', '.join(parts)}"


def loss_between(
    rows: Sequence[Mapping[str, Any]], group: str, start: int, end: int
) -> float | None:
    """Return a group's mean loss per token in the rows logged from a step up to another.

    Args:
        rows: Rows as in the file.
        group: Name of the group, such as "agent/os".
        start: First step; what is logged at a step is known only after that step's evaluations.
        end: Step after the last.
    """
    found = [row["groups"].get(group) for row in rows if start <= row["step"] < end]
    known = [each for each in found if each and each["loss"] is not None]
    tokens = sum(each["tokens"] for each in known)
    return sum(each["loss"] * each["tokens"] for each in known) / tokens if tokens else None
