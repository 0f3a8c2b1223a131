"""ScienceWorld (Wang et al., 2022), with AgentTuning's protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluators.evaluator import Evaluator
    from evaluators.tasks.registry import SuiteSettings


def make(name: str, settings: SuiteSettings) -> Evaluator:
    """Create the evaluator; see `evaluator.science_world`."""
    from evaluators.tasks.held_out.science_world.evaluator import science_world

    return science_world(name, settings)
