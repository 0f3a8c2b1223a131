"""MiniWoB++ (Liu et al., 2018): small web tasks in a real browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluators.evaluator import Evaluator
    from evaluators.tasks.registry import SuiteSettings


def make(name: str, settings: SuiteSettings) -> Evaluator:
    """Create the evaluator; see `evaluator.miniwob`."""
    from evaluators.tasks.held_out.miniwob.evaluator import miniwob

    return miniwob(name, settings)
