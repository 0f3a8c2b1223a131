"""Held-in environments, the ones whose training split makes training data.

They live in the data layer because AgentInstruct is made with them: an environment
plays a task, its own metric rewards the trajectory, and the rewarded ones become
conversations (AgentTuning, arXiv 2310.12823, section 2). Evaluators use the same
classes on the evaluation splits. Held-out environments never make data and therefore
do not belong here.

Importing this package loads no environment and registers nothing.
"""

from __future__ import annotations

from importlib import import_module

import gymnasium

from dataset_builders.environments.base import TextEnvironment
from dataset_builders.errors import ConfigError

HELD_IN: dict[str, str] = {
    "database": "dataset_builders.environments.database:DatabaseEnvironment",
}
"""Environment name to "module:Class"."""


def load_environment(name: str) -> type[TextEnvironment]:
    """Import the environment class of a name.

    Args:
        name: A key of `HELD_IN`, such as "database".

    Raises:
        ConfigError: No environment has this name; the message lists the known ones.
        MissingExtraError: The environment needs an optional dependency.
    """
    if name not in HELD_IN:
        raise ConfigError(f"environment {name!r} is unknown; known: {', '.join(sorted(HELD_IN))}")
    module, _, attribute = HELD_IN[name].partition(":")
    loaded: type[TextEnvironment] = getattr(import_module(module), attribute)
    return loaded


def register_environments() -> None:
    """Register the environments with Gymnasium, as `agenttuning/<name>-v0`.

    May be called more than once. Gymnasium's own checker is left off: its text space
    wants a list of characters, and an observation may hold any.
    """
    for name, entry_point in HELD_IN.items():
        identifier = f"agenttuning/{name}-v0"
        if identifier not in gymnasium.registry:
            gymnasium.register(identifier, entry_point=entry_point, disable_env_checker=True)
