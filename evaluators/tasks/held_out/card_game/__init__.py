"""The Digital Card Game of AgentBench: two teams of four fish, hidden from each other.

An implementation of its rules of our own; see docs/tasks/held-out/card-game.md for where they
were found and for what could not be told from there.
"""

from __future__ import annotations

from evaluators.tasks.agent_task import AgentTaskEvaluator
from evaluators.tasks.held_out import load_held_out
from evaluators.tasks.registry import SuiteSettings


def make(name: str, settings: SuiteSettings) -> AgentTaskEvaluator:
    """The evaluator of 200 games; needs no data.

    Args:
        name: "card_game".
        settings: `seed` decides what the baselines draw.

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
        """The wording, the seed and whose rules these are."""
        return super().about() | {"rules": "own implementation of AgentBench's stage 2"}
