"""The `agenttuning:` section as an object, for trainers that have no recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agenttuning_plugin.config.recipe import AgentTuningSection
from agenttuning_plugin.config.rules import section_of
from agenttuning_plugin.config.shipped import read_recipe
from dataset_builders.errors import ConfigError
from dataset_builders.settings import problems_of


class AgentTuningConfig(AgentTuningSection):
    """The section `agenttuning:` of a YAML recipe; docs/reference/recipe.md lists its keys.

    Raises:
        ConfigError: A key is unknown or a value wrong; names each.
    """

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise ConfigError(problems_of(AgentTuningSection, error, "agenttuning")) from None

    @classmethod
    def from_yaml(cls, path: str | Path) -> AgentTuningConfig:
        """Read the section of an Axolotl recipe; its other keys are not looked at.

        Raises:
            ConfigError: It is not YAML, has no such section, or the section is wrong.
            SourceNotFoundError: There is no such file.
        """
        recipe = read_recipe(Path(path).expanduser())
        section_of(recipe)
        return cls(**recipe["agenttuning"])
