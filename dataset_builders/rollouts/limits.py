"""Limits of an episode or a run, each with its exit reason."""

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
    """Maximum usage of an episode or a run; None for no limit.

    They are checked before each request, so the last reply may exceed them.

    Attributes:
        steps: Turns of the model, in addition to the environment's own limit.
        tokens: Prompt and completion tokens.
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
        """Return the name of the first limit that is reached, or ""."""
        cost = spent.cost or 0.0
        limits = (
            (STEP_LIMIT, self.steps, steps),
            (TOKEN_LIMIT, self.tokens, spent.tokens),
            (COST_LIMIT, self.cost, cost),
            (TIME_LIMIT, self.seconds, seconds),
        )
        return next((name for name, most, now in limits if most is not None and now >= most), "")
