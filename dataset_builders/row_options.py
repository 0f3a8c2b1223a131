"""How a conversation becomes training rows: options that its source sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

RowSplit = Literal["auto", "conversation", "per_turn"]
ROW_SPLITS: tuple[str, ...] = get_args(RowSplit)
"""How trained turns are distributed over rows, see `RowOptions.rows`."""


@dataclass(frozen=True, slots=True)
class RowOptions:
    """How the rows of a conversation are made.

    Attributes:
        rows: "conversation": one row. "per_turn": one row for each trained turn, which ends with
            it. "auto": one, unless that shows a trained turn unlike inference, because the chat
            template renders past turns differently (Qwen3's drops reasoning before the last user
            turn) or `keep_last_turns` cuts the history; then as few as show every turn right.
        mask_reasoning: Whether reasoning is context without loss.
        keep_last_turns: Number of assistant turns before the trained one that its row keeps after
            the opening; none: all.
        opening_turns: Number of assistant turns in the opening, which is always kept: those before
            the first turn that the source marks as trained.
    """

    rows: RowSplit = "auto"
    mask_reasoning: bool = False
    keep_last_turns: int | None = None
    opening_turns: int = 0
