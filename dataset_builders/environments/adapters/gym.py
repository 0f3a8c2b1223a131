"""Gymnasium environments whose observations and actions are text.

`gym:ID` is an environment registered with Gymnasium; `gym:module:ID` imports the module that
registers it first. A class by a reference `module:Class` is one, too. The score is the sum of
rewards between the options `lowest` and `highest`, 0 to 1 unless set.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import gymnasium
from gymnasium import spaces

from dataset_builders.environments.adapters.seeded import FIRST_SEED, SeededWorld, named_class
from dataset_builders.environments.base import Oracle, OracleStep, ResetResult, StepResult
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.environments.own_code import guarded
from dataset_builders.errors import ConfigError, EnvironmentFailureError

_ACTION = re.compile(r"Action:\s*(.*)\Z", re.DOTALL)
_ROUNDS = 30


class GymWorld(SeededWorld):
    """A Gymnasium environment of text.

    Args:
        size: Tasks of each split; a task is a seed of `reset`.
        arguments: Arguments of the environment.
        lowest: Sum of an episode's rewards that is score 0.
        highest: Sum of an episode's rewards that is score 1.

    Attributes:
        place: How errors name it.
        maker: Makes the environment.
    """

    default_size: ClassVar[int] = 100
    place: ClassVar[str]
    maker: ClassVar[Callable[..., gymnasium.Env[Any, Any]]]
    idle_action: ClassVar[str] = "wait"

    def __init__(
        self,
        size: int | None = None,
        arguments: Mapping[str, Any] | None = None,
        lowest: float = 0.0,
        highest: float = 1.0,
    ) -> None:
        super().__init__(size)
        self.arguments = dict(arguments or {})
        self.lowest, self.highest = lowest, highest
        if not lowest < highest:
            raise ConfigError(f"{self.place}: lowest: found {lowest}, expected less than {highest}")
        self._env: gymnasium.Env[Any, Any] | None = None
        self._total = 0.0

    def _generate(self, split: str, number: int) -> ResetResult:
        env = guarded(self.place, "making it", lambda: type(self).maker(**self.arguments))
        self._env, self._total = env, 0.0
        for kind, space in (
            ("observation", env.observation_space),
            ("action", env.action_space),
        ):
            if not isinstance(space, spaces.Text):
                raise ConfigError(f"{self.place}: {kind} space: found {space}, expected Text")
        observation, _ = env.reset(seed=FIRST_SEED[split] + number)
        return ResetResult(observation, str(observation))

    def _act(self, action: str) -> StepResult:
        assert self._env is not None
        if not self._env.action_space.contains(action):
            return StepResult(
                f"Not a valid action: expected {self._env.action_space}.", valid=False
            )
        observation, reward, terminated, truncated, _ = self._env.step(action)
        self._total += float(reward)
        reason = "finished" if terminated else "step_limit" if truncated else ""
        return StepResult(observation, reason, self._score())

    def _score(self) -> float:
        return (self._total - self.lowest) / (self.highest - self.lowest)

    def _end(self) -> None:
        if self._env is not None:
            self._env.close()
        self._env = None

    def oracle(self) -> Oracle:
        """Yield the actions of the environment's own method `oracle`, if it has one."""
        found = getattr(self._env.unwrapped, "oracle", None) if self._env is not None else None
        if not callable(found):
            raise EnvironmentFailureError(f"{self.name}: the environment has no method oracle")
        actions: Iterable[Any] = found()
        for action in actions:
            yield OracleStep("", str(action))


class GymDialogue(Dialogue):
    """Observations as user turns; the model's turn ends in `Action: ...`."""

    world: ClassVar[type[SeededWorld]] = GymWorld
    round_limit: ClassVar[int] = _ROUNDS
    max_new_tokens: ClassVar[int] = 256
    prompt_template: ClassVar[Mapping[str, Any]] = {
        "first": "End each of your turns with one action, written as `Action: ...`.\n\n"
        "{observation}",
    }

    def read(self, said: str) -> str | None:
        """Return what follows the last `Action:`."""
        found = _ACTION.search(said, max(said.rfind("Action:"), 0))
        return found[1].strip() if found else None

    def write(self, move: OracleStep) -> str:
        """Return the thought, if there is one, and the action."""
        action = f"Action: {move.action}"
        return f"{move.thought}\n{action}" if move.thought else action


def dialogue_class(name: str) -> type[Dialogue]:
    """Return the dialogue of a registered environment.

    Raises:
        ConfigError: No such environment is registered.
    """
    place = f"gym:{name}"
    try:
        spec = guarded(place, "looking it up", lambda: _spec(name))
    except gymnasium.error.Error as error:
        raise ConfigError(f"{place}: {error}") from error
    made = named_class(
        place,
        GymDialogue,
        place=place,
        maker=staticmethod(lambda **given: gymnasium.make(spec, disable_env_checker=True, **given)),
    )
    made.round_limit = spec.max_episode_steps or _ROUNDS
    return made


def _spec(name: str) -> Any:
    module, colon, identifier = name.rpartition(":")
    if colon:
        from importlib import import_module

        import_module(module)
    return gymnasium.spec(identifier)


def wrapped_class(place: str, found: Callable[..., Any]) -> type[Dialogue]:
    """Return the dialogue of a class of Gymnasium environments.

    Args:
        place: Its reference, "module:Class".
        found: The class.
    """
    name = place.rpartition(":")[2]
    return named_class(name, GymDialogue, place=place, maker=staticmethod(found))
