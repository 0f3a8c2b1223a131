"""AgentBench's Digital Card Game: two teams of four fish with hidden identities.

This is our own implementation of its rules; docs/tasks/held-out/card-game.md lists its sources and
what they leave open.
"""

from __future__ import annotations

from evaluators.tasks.agent_task import AgentTaskEvaluator
from evaluators.tasks.held_out import load_held_out
from evaluators.tasks.registry import SuiteSettings


def make(name: str, settings: SuiteSettings) -> AgentTaskEvaluator:
    """Create the evaluator of 200 games; needs no data.

    Args:
        name: "card_game".
        settings: `seed` seeds the baselines.

    Raises:
        ConfigError: An option is unknown.
    """
    options = {"seed": settings.seed} | settings.environment_options(name)
    environment = load_held_out(name, **options)
    environment.check_options()
    return CardGameEvaluator(
        environment,
        batch_size=settings.batch_size,
        max_new_tokens=settings.max_new_tokens,
        suite="held-out",
        keep_order=True,
        primary="success",
        oracle=settings.oracle,
    )


class CardGameEvaluator(AgentTaskEvaluator):
    """Plays the games; `success` is the win rate."""

    def about(self) -> dict[str, str]:
        """Return the prompt template, the seed and the origin of the rules."""
        return super().about() | {"rules": "own implementation of AgentBench's stage 2"}
