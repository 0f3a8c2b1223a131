"""ScienceWorld's simulator: a Java program that one process drives."""

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
    """What keeps the simulator from running here, with the remedy; "" for nothing."""
    if find_spec("scienceworld") is None:
        return _NO_EXTRA
    return "" if shutil.which("java") else _NO_JAVA


def check() -> None:
    """Tell whether the simulator can run here.

    Raises:
        MissingExtraError: `scienceworld` is not installed.
        SourceNotFoundError: There is no Java.
    """
    if lacking := missing():
        raise (MissingExtraError if lacking == _NO_EXTRA else SourceNotFoundError)(lacking)


@dataclass(frozen=True, slots=True)
class State:
    """What the simulator tells after an action.

    Attributes:
        observation: Its answer.
        score: Of the task so far, 100 for all of it; negative where it is spoilt.
        over: Whether it ended the episode.
        look: What "look around" shows.
        inventory: What is carried.
        valid: Actions that it would take now.
    """

    observation: str
    score: int
    over: bool
    look: str
    inventory: str
    valid: tuple[str, ...]


class Simulator:
    """A running simulator, which takes one task after the other.

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
        except Exception as error:  # py4j's, of many classes.
            raise EnvironmentFailureError(f"science_world: Java did not start: {error}") from None
        self.close = weakref.finalize(self, _stop, self._env)

    def begin(self, task: str, variation: int, *, step_limit: int = STEP_LIMIT) -> State:
        """Start a variation of a task.

        Raises:
            EnvironmentFailureError: The program fails, or is gone; this of all methods.
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
        """Act."""
        with _failures():
            observation, _, over, info = self._env.step(action)
            return _state(observation, bool(over), info)

    def gold_actions(self, task: str, variation: int) -> tuple[str, ...]:
        """Actions that solve a variation; the running episode is lost."""
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
    with suppress(Exception):  # A foreign program's end: it is killed in any case.
        env._obj_tree_tempdir.cleanup()
        env.close()
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # What was not written to it never will be.
            pipe.close()
