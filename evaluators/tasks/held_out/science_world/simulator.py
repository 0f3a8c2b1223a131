"""ScienceWorld's simulator: a Java program driven by one process."""

from __future__ import annotations

import os
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from dataset_builders.errors import EnvironmentFailureError, MissingExtraError, SourceNotFoundError

STEP_LIMIT = 100
SIMPLIFICATION = "easy"

_OPTIONS = "JAVA_TOOL_OPTIONS"
_MEMORY = "-Xmx512m"
_NO_EXTRA = "science_world needs scienceworld: pip install 'agenttuning-plugin[science-world]'"
_NO_JAVA = "science_world needs Java, found no program java: apt-get install default-jre-headless"


def missing() -> str:
    """Return why the simulator cannot run here, with the remedy; "" if it can."""
    if find_spec("scienceworld") is None:
        return _NO_EXTRA
    return "" if shutil.which("java") else _NO_JAVA


def check() -> None:
    """Check that the simulator can run here.

    Raises:
        MissingExtraError: `scienceworld` is not installed.
        SourceNotFoundError: There is no Java.
    """
    if lacking := missing():
        raise (MissingExtraError if lacking == _NO_EXTRA else SourceNotFoundError)(lacking)


@dataclass(frozen=True, slots=True)
class State:
    """State of the simulator after an action.

    Attributes:
        observation: Its answer.
        score: Score of the task so far, at most 100; negative if it was failed.
        over: Whether the episode has ended.
        look: Output of "look around".
        inventory: The inventory.
        valid: Actions that it accepts now.
    """

    observation: str
    score: int
    over: bool
    look: str
    inventory: str
    valid: tuple[str, ...]


class Simulator:
    """A running simulator, which plays one task at a time.

    Its program ends with this object, and with the process.

    Raises:
        MissingExtraError: `scienceworld` is not installed.
        SourceNotFoundError: There is no Java.
        EnvironmentFailureError: It does not start.
    """

    def __init__(self) -> None:
        check()
        from scienceworld import ScienceWorldEnv

        os.environ.setdefault(_OPTIONS, _MEMORY)
        try:
            self._env: Any = ScienceWorldEnv("", None, envStepLimit=STEP_LIMIT)
        except Exception as error:  # py4j raises many classes.
            raise EnvironmentFailureError(f"science_world: Java did not start: {error}") from None
        self.close = weakref.finalize(self, _stop, self._env)

    def begin(self, task: str, variation: int, *, step_limit: int = STEP_LIMIT) -> State:
        """Start a variation of a task.

        Raises:
            EnvironmentFailureError: The program fails, or is gone; true of all methods.
        """
        with _failures():
            self._load(task, variation)
            self._env.envStepLimit = step_limit
            observation, info = self._env.reset()
            return _state(observation, False, info)

    def description(self) -> str:
        """The task of the episode, in words."""
        with _failures():
            return str(self._env.taskdescription()).removeprefix("Task Description:").strip()

    def step(self, action: str) -> State:
        """Execute an action."""
        with _failures():
            observation, _, over, info = self._env.step(action)
            return _state(observation, bool(over), info)

    def gold_actions(self, task: str, variation: int) -> tuple[str, ...]:
        """Return actions that solve a variation; ends the running episode."""
        with _failures():
            self._load(task, variation, gold=True)
            return tuple(map(str, self._env.get_gold_action_sequence()))

    def _load(self, task: str, variation: int, *, gold: bool = False) -> None:
        self._env.load(task, variation, SIMPLIFICATION, generateGoldPath=gold)


def _state(observation: str, over: bool, info: dict[str, Any]) -> State:
    return State(
        observation=str(observation),
        score=int(info["score"]),
        over=over,
        look=str(info["look"]),
        inventory=str(info["inv"]),
        valid=tuple(map(str, info["valid"])),
    )


@contextmanager
def _failures() -> Iterator[None]:
    from py4j.protocol import Py4JError

    try:
        yield
    except (Py4JError, OSError) as error:
        last = str(error).strip().split("\n")[-1][:200]
        raise EnvironmentFailureError(
            f"science_world: Java failed: {type(error).__name__}: {last}"
        ) from None


def _stop(env: Any) -> None:
    """End the Java program; it may be dead, or stuck."""
    process = env._gateway.java_process
    with suppress(Exception):  # it is killed anyway
        env._obj_tree_tempdir.cleanup()
        env.close()
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # Unwritten output is discarded.
            pipe.close()
