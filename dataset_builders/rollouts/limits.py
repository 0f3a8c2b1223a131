"""Limits of an episode and of a whole run, each with the name under which it ends them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from dataset_builders.errors import ConfigError
from dataset_builders.rollouts.ledger import Usage

STEP_LIMIT = "step_limit"
TOKEN_LIMIT = "token_limit"
COST_LIMIT = "cost_limit"
TIME_LIMIT = "time_limit"


@dataclass(frozen=True, slots=True)
class Limits:
    """Most that an episode, or a run, may take; None is no limit.

    They are looked at before each request, so the last reply may go beyond.

    Attributes:
        steps: Turns of the model; beside the environment's own limit on rounds.
        tokens: Tokens read and written.
        cost: In the price table's currency.
        seconds: Wall time.
    """

    steps: int | None = None
    tokens: int | None = None
    cost: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and not value > 0:
                raise ConfigError(f"limit on {each.name}: found {value}, expected more than 0")

    def reached(self, steps: int, spent: Usage, seconds: float) -> str:
        """Name of the first limit that is reached, or ""."""
        cost = spent.cost or 0.0
        limits = (
            (STEP_LIMIT, self.steps, steps),
            (TOKEN_LIMIT, self.tokens, spent.tokens),
            (COST_LIMIT, self.cost, cost),
            (TIME_LIMIT, self.seconds, seconds),
        )
        return next((name for name, most, now in limits if most is not None and now >= most), "")
