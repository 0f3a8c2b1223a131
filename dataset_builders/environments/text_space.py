"""Gymnasium space of any text."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces

MAX_CHARACTERS = 1_000_000
"""Maximum text length of the space, in characters."""


class AnyText(spaces.Text):
    """A text space that accepts any text; Gymnasium's own requires a character set."""

    def __init__(self) -> None:
        super().__init__(max_length=MAX_CHARACTERS, min_length=0)

    def contains(self, x: Any) -> bool:
        """Whether `x` is text of a length within the space."""
        return isinstance(x, str) and len(x) <= self.max_length
