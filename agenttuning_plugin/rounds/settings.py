"""Settings of rounds, and which of them determine the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

from pydantic import Field

from dataset_builders.settings import settings

_FREE = ("rounds", "batch_size", "serve")
"""Settings that may change between sessions: how far and how fast, not what."""


@settings
class RoundsConfig:
    """What each round plays, keeps, trains on and has to improve."""

    env: str = Field(
        description="Environment to play: that of an `agent_task` evaluator of the recipe, whose "
        "prompt and options it is played with."
    )
    rounds: int = Field(default=3, ge=1, description="Maximum number of rounds.")
    num_tasks: int = Field(default=256, ge=1, description="Training tasks to play in a round.")
    attempts: int = Field(
        default=4, ge=1, description="Maximum attempts per task in a round, until one is kept."
    )
    temperature: float = Field(default=0.7, gt=0, description="Sampling temperature.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus sampling threshold.")
    max_new_tokens: int | None = Field(
        default=None, ge=1, description="Maximum tokens of a turn. [default: the evaluator's]"
    )
    min_reward: float | None = Field(
        default=None, ge=0, le=1, description="Minimum reward to keep. [default: the paper's]"
    )
    filters: tuple[str, ...] = Field(
        default=(), description="Additional filter of collected episodes; repeatable."
    )
    data: Literal["add", "replace", "latest"] = Field(
        default="add",
        description="Agent data of a round: add: the recipe's and what all rounds kept; latest: "
        "the recipe's and what this round kept; replace: only what all rounds kept.",
    )
    per_task: int = Field(
        default=4, ge=1, description="Maximum kept episodes per task, the newest of all rounds."
    )
    train_from: Literal["base", "last"] = Field(
        default="base",
        description="Model that a round trains: base: the recipe's base model; last: the last "
        "accepted model, an adapter merged.",
    )
    alpha: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Significance level of the rise of the held-in figure, one-sided, paired by "
        "task.",
    )
    eval_tasks: int | None = Field(
        default=None,
        ge=1,
        description="Tasks of the environment's evaluator. [default: the recipe's, but at least "
        "128 where the split has them: fewer hardly show a rise]",
    )
    seed: int = Field(default=0, ge=0, description="Seed of tasks and samples; each round adds 1.")
    batch_size: int = Field(default=32, ge=1, description="Concurrent episodes.")
    serve: Literal["vllm", "transformers"] | None = Field(
        default=None,
        description="Server to collect with, started and stopped in each round. [default: the "
        "model is loaded in this process]",
    )

    def fingerprint(self) -> dict[str, Any]:
        """Return the settings that a folder of rounds is resumed with."""
        return {name: value for name, value in _plain(asdict(self)) if name not in _FREE}


def _plain(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(key, list(v) if isinstance(v, tuple) else v) for key, v in values.items()]
