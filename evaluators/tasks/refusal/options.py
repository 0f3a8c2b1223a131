"""Options of the refusal evaluator."""

from __future__ import annotations

from pydantic import Field

from dataset_builders.refusals.forms import Actions, Setting
from dataset_builders.settings import options

MAX_NEW_TOKENS = 64
"""Default maximum of tokens: a refusal is in the first sentences."""


@options
class Options:
    """Options of the refusal evaluator."""

    data: str | None = Field(
        default=None, description="File, folder or hub id of requests; default: the shipped set."
    )
    setting: Setting | None = Field(
        default=None,
        description="chat, agent or both. [default: both for the shipped set, else chat]",
    )
    actions: Actions = Field(
        default="text", description="How an agent's actions are written: text or tools."
    )
