"""MiniWoB++ evaluator: the share of episodes with a positive reward."""

from __future__ import annotations

from dataset_builders.rollouts.episode import Trajectory
from evaluators.evaluator import Record
from evaluators.tasks.agent_task import AgentTaskEvaluator
from evaluators.tasks.held_out import load_held_out
from evaluators.tasks.held_out.miniwob import browser
from evaluators.tasks.held_out.miniwob.tasks import task_and_seed
from evaluators.tasks.registry import SuiteSettings

MAX_BROWSERS = 4
"""Episodes at once: each has a browser of its own."""


class MiniWobEvaluator(AgentTaskEvaluator):
    """Evaluates MiniWoB++; the paper's figure is `success`, with equal weight per episode."""

    def record(self, trajectory: Trajectory) -> Record:
        """Return an episode's record; its group is the task."""
        return super().record(trajectory) | {"group": task_and_seed(trajectory.task_id)[0]}

    def about(self) -> dict[str, str]:
        """Add that the procedure is ours."""
        return super().about() | {"protocol": "own (no RCI), seeded pages"}


def miniwob(name: str, settings: SuiteSettings) -> AgentTaskEvaluator:
    """Create the evaluator.

    Args:
        name: "miniwob".
        settings: The user's; of `options`: `observation` ("lines" or "html").

    Raises:
        MissingExtraError: `miniwob` is not installed.
        SourceNotFoundError: There is no Chromium, or no driver.
        ConfigError: A setting is unknown.
    """
    spec = load_held_out(name, **settings.environment_options(name))
    browser.check()
    return MiniWobEvaluator(
        spec,
        suite="held-out",
        keep_order=True,
        primary="success",
        batch_size=min(settings.batch_size, MAX_BROWSERS),
        max_new_tokens=settings.max_new_tokens,
        oracle=settings.oracle,
    )
