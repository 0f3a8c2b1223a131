"""Settings of recovery splices, the same in a recipe, in Python and on the command line."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dataset_builders.settings import settings


@settings
class RecoverSettings:
    """Failed episodes of a collection, continued in their environment until the task is solved."""

    collection: str = Field(
        min_length=1,
        description="Folder of a collection with failed episodes; `path` of the source names it "
        "too.",
    )
    at: Literal["first_error", "last_recoverable", "random"] = Field(
        default="first_error",
        description="Turn after which a failed episode is continued. `first_error`: the first "
        "whose observation is an error or unchanged, else the first that differs from a "
        "successful episode, else as `last_recoverable`: the last from which the task is still "
        "solved; `random`: drawn.",
    )
    continuation: Literal["auto", "kept", "oracle"] = Field(
        default="auto",
        description="What continues it: `kept`: the actions of a successful episode of the same "
        "task; `oracle`: the environment's oracle; `auto`: the first of the two that solves it.",
    )
    good: str | None = Field(
        default=None,
        description="Another collection of the same tasks with successful episodes; default: "
        "only the collection itself.",
    )
    per_episode: int = Field(
        default=1, ge=1, description="Maximum splices made from a failed episode."
    )
    max_tries: int = Field(
        default=8, ge=1, description="Maximum replays of a failed episode, until enough are made."
    )
    min_reward: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Reward at which an episode counts as solved; default: the environment's.",
    )
    environment: str | None = Field(
        default=None,
        description="Reference of an environment of your own, `module:Class` or "
        "`./file.py:Class`; held-in environments need none.",
    )
    data: str | None = Field(default=None, description="Folder of the environment's data.")
    agentinstruct: str | None = Field(
        default=None,
        description="AgentInstruct copy, for episodes collected with the published prompts.",
    )
    seed: int = Field(default=0, description="Seed of `random`.")
    max_concurrency: int = Field(default=4, ge=1, description="Maximum concurrent replays.")
