"""Held-out benchmarks: tasks that must never produce training data.

They live in this layer, which the data layer cannot import.
"""

from __future__ import annotations

from typing import Any

from dataset_builders.environments import EnvironmentSpec
from dataset_builders.errors import ConfigError

HELD_OUT: dict[str, str] = {
    "science_world": "evaluators.tasks.held_out.science_world.dialogue:ScienceWorldDialogue",
    "miniwob": "evaluators.tasks.held_out.miniwob.dialogue:MiniWobDialogue",
    "hotpot_qa": "evaluators.tasks.held_out.hotpot_qa.dialogue:HotpotQaDialogue",
    "card_game": "evaluators.tasks.held_out.card_game.dialogue:CardGameDialogue",
    "web_arena": "evaluators.tasks.held_out.web_arena.dialogue:WebArenaDialogue",
}
"""Name to "module:Class" of the dialogue, of those that are environments."""


def load_held_out(name: str, **options: Any) -> EnvironmentSpec:
    """Look up a held-out environment by name.

    Args:
        name: A key of `HELD_OUT`.
        options: Arguments of the environment's class; None selects the default.

    Raises:
        ConfigError: No held-out environment has this name.
    """
    if name not in HELD_OUT:
        raise ConfigError(f"environment {name!r} is unknown; known: {', '.join(sorted(HELD_OUT))}")
    given = {key: value for key, value in options.items() if value is not None}
    return EnvironmentSpec(name, options=given, place=HELD_OUT[name])
