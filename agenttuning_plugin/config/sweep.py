"""Block `sweep:` of a recipe: what `agenttuning sweep` varies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError

from agenttuning_plugin.config.base import StrictModel
from dataset_builders.errors import ConfigError
from dataset_builders.settings import problems_of

BLOCK = "sweep"
"""Top-level key of a recipe; the recipes of the arms do not have it."""


class SweepBlock(StrictModel):
    """Block `sweep:` of a recipe."""

    set: dict[str, Any] = Field(
        default_factory=dict,
        description="Values by key, such as `{agenttuning.eta: [0, 0.5]}`; values that are "
        "mappings get names: `{agenttuning.general: {chat: {path: a.jsonl}}}`.",
    )
    seeds: int | list[int] = Field(
        default=1,
        description="Seeds of each arm, or their number, counted from the recipe's `seed`.",
    )
    skip: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Combinations to leave out: values or names by key, one or a list.",
    )
    arms: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Further arms by name, each with the keys that it changes.",
    )


def block_of(recipe: Mapping[str, Any]) -> SweepBlock:
    """Return the block of a recipe; an empty one if it has none.

    Raises:
        ConfigError: A key is unknown or a value wrong; names each.
    """
    try:
        return SweepBlock.model_validate(recipe.get(BLOCK) or {})
    except ValidationError as error:
        raise ConfigError(problems_of(SweepBlock, error, BLOCK)) from None
