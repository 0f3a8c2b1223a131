"""Environments of other packages, by a reference `PACKAGE:NAME`.

- `reasoning_gym:TASK`: a procedural dataset of the package reasoning-gym, one turn a task;
- `textarena:GAME`: a game of the package textarena, alone or against a scripted opponent;
- `verifiers:ID`: a taskset of the package verifiers, with its tools and rewards;
- `gym:ID`: an environment registered with Gymnasium whose observations and actions are text.

But for verifiers' they have no tasks of their own: a task is a seed, and each split has a range
of seeds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataset_builders.environments.dialogue import Dialogue

ADAPTERS: dict[str, str] = {
    "gym": "dataset_builders.environments.adapters.gym",
    "reasoning_gym": "dataset_builders.environments.adapters.reasoning_gym",
    "textarena": "dataset_builders.environments.adapters.textarena",
    "verifiers": "dataset_builders.environments.adapters.verifiers",
}
"""Module of each adapter, by what stands before the colon; its `dialogue_class` makes a class."""


def adapted(place: str) -> type[Dialogue] | None:
    """Return the dialogue class of a reference `PACKAGE:NAME`, None if it is none.

    Raises:
        ConfigError: The package has no such environment, or it is none of text.
        MissingExtraError: The package is not installed.
    """
    head, colon, name = place.partition(":")
    if not colon or head not in ADAPTERS:
        return None
    made: type[Dialogue] = import_module(ADAPTERS[head]).dialogue_class(name)
    return made


def wrapped(place: str, found: type) -> type[Dialogue]:
    """Return the dialogue of a class of Gymnasium environments.

    Args:
        place: Its reference, "module:Class".
        found: The class.
    """
    made: type[Dialogue] = import_module(ADAPTERS["gym"]).wrapped_class(place, found)
    return made
