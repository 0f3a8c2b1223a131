"""Settings of format variation."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from dataset_builders.settings import settings


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


@settings
class VarySettings:
    """What is varied in agent conversations, and conversations that need no tool."""

    tools: bool = Field(
        default=False,
        description="Rename tools, and the action names of text protocols, the same way in "
        "schemas, calls and text.",
    )
    wording: bool = Field(
        default=False,
        description="Replace known instructions by other wordings of the same rules.",
    )
    order: bool = Field(default=False, description="Shuffle the list of tools.")
    variants: int = Field(
        default=1, ge=1, description="Varied conversations made from each conversation."
    )
    original: bool = Field(
        default=True, description="Whether the conversation as it is stays beside its variants."
    )
    file: str | None = Field(
        default=None,
        description="YAML file with further protocols, which are looked at first; see "
        "docs/methods/format-variation.md.",
    )
    no_tool_share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the source's conversations that are general chat shown with the "
        "tools of agent conversations and answered in text.",
    )
    no_tool_from: Annotated[tuple[str, ...], BeforeValidator(_several)] = Field(
        default=(),
        description="Chat for `no_tool_share`: files, folders or hub ids; default: the recipe's "
        "general sources.",
    )
    seed: int = Field(default=0, description="Seed of all choices.")

    @property
    def growth(self) -> float:
        """Conversations of the source for each that is read, if all can be varied."""
        return (self.variants + self.original) / (1 - self.no_tool_share)
