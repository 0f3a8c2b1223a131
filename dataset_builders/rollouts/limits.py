"""Limits of an episode or a run, each with its exit reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from dataset_builders.errors import ConfigError
from dataset_builders.settings import fields_of, settings

if TYPE_CHECKING:
    from dataset_builders.rollouts.ledger import Usage

STEP_LIMIT = "step_limit"
TOKEN_LIMIT = "token_limit"
COST_LIMIT = "cost_limit"
TIME_LIMIT = "time_limit"


@settings
class Limits:
    """Maximum usage of an episode or a run; None for no limit.

    They are checked before each request, so the last reply may exceed them.
    """

    steps: int | None = Field(
        default=None, description="Maximum turns, in addition to the environment's own limit."
    )
    tokens: int | None = Field(default=None, description="Maximum prompt and completion tokens.")
    cost: float | None = Field(default=None, description="Maximum cost, by the price table.")
    seconds: float | None = Field(default=None, description="Maximum seconds.")

    def __post_init__(self) -> None:
        for name in fields_of(type(self)):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"limit on {name}: found {value}, expected more than 0")

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
