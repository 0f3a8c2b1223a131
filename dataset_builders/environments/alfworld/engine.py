"""Run a game in TextWorld's PDDL interpreter, with ALFWorld's object names."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dataset_builders.environments.alfworld.games import Game
from dataset_builders.errors import EnvironmentFailureError, MissingExtraError

_NEEDS = ("alfworld", "fast_downward", "textworld")
_INSTALL = "pip install 'agenttuning-plugin[alfworld]'"

Fact = tuple[str, ...]
"""A predicate and its arguments, such as ("inreceptacle", "mug 1", "desk 1")."""


@dataclass(frozen=True, slots=True)
class Scene:
    """State of a game after a command.

    Attributes:
        feedback: The game's output.
        commands: Admissible commands, sorted.
        won: Whether the goal is reached.
    """

    feedback: str
    commands: tuple[str, ...]
    won: bool


class GameEngine:
    """Plays one game at a time; memory is never freed, so a process should create few.

    Raises:
        MissingExtraError: The extra `alfworld` is not installed.
    """

    def __init__(self) -> None:
        if lacking := missing_packages():
            raise MissingExtraError(lacking)
        with _guarded():
            from textworld.core import EnvInfos
            from textworld.envs.pddl.pddl import PddlEnv

            self._game: Any = PddlEnv(EnvInfos(feedback=True, won=True, facts=True))

    def start(self, game: Game) -> Scene:
        """Load and start a game.

        Raises:
            EnvironmentFailureError: TextWorld cannot read the game.
        """
        source = {
            "pddl_domain": game.domain,
            "grammar": game.grammar,
            "pddl_problem": game.problem,
        }
        try:
            with _guarded():
                self._game.load(source)
                self._rename()
                return _scene(self._game.reset())
        # On bad text the parser raises arbitrary errors, SystemExit included.
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {error}"
            raise EnvironmentFailureError(f"alfworld: cannot load {game.key}: {reason}") from error

    def act(self, command: str) -> Scene:
        """Execute a command; an unknown one changes nothing."""
        state, _, _ = self._game.step(command)
        return _scene(state)

    def facts(self) -> tuple[Fact, ...]:
        """Return all current facts, sorted, with the object names that commands use."""
        return tuple(
            sorted(
                (fact.name, *(argument.name.strip() for argument in fact.arguments))
                for fact in self._game.state["facts"]
            )
        )

    def _rename(self) -> None:
        """Number objects as ALFWorld does: "mug 1" instead of its coordinates."""
        from alfworld.agents.utils.misc import Demangler

        entities = self._game._entity_infos
        names = Demangler(game_infos=entities, shuffle=False)
        for entity in entities.values():
            entity.name = names.demangle_alfred_name(entity.id)


def missing_packages() -> str:
    """Return which packages of the extra are missing, with the remedy, or ""."""
    lacking = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    return f"alfworld: {', '.join(lacking)} not installed: {_INSTALL}" if lacking else ""


@contextlib.contextmanager
def _guarded() -> Iterator[None]:
    """Protect process state: the planner sets `sys.argv` and may print."""
    arguments = sys.argv
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        sys.argv = arguments


def _scene(state: Any) -> Scene:
    return Scene(str(state.feedback), tuple(state["admissible_commands"]), bool(state["won"]))
