"""What a team writes: an environment of tool calls in four methods."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from dataset_builders.environments.base import Isolation
from dataset_builders.environments.tool_functions import function_schema, tools_of
from dataset_builders.errors import EnvironmentFailureError

Move = tuple[str, Mapping[str, Any]] | str
"""A call, as name and arguments; or the text of a turn without a call."""


class ToolEnvironment(ABC):
    """An environment whose actions are tool calls: `tasks`, `reset`, `call` and `score`.

    Methods with the decorator `tool` are the tools; the default `call` calls them. One object plays
    one episode at a time, one after another. A constructor's arguments are options of the
    environment, such as `--option rules=strict`.

    An episode ends with a turn without a call, unless `respond` answers it; when `finished` is
    true; or at `round_limit`, then with score 0.

    Attributes:
        name: Name of its figures and files; by default the class's in snake case.
        round_limit: Assistant turns after which the episode is ended.
        max_new_tokens: Tokens an assistant turn may have.
        held_out: Whether it is for evaluation only, so that no training data is made of it.
        success_score: Smallest score that counts as success; collection keeps what reaches it.
        isolation: "process" (each object in a process of its own), "thread" or "inline".
        call_limit: Seconds that a call may take in a process of its own.
    """

    name: ClassVar[str] = ""
    round_limit: ClassVar[int] = 20
    max_new_tokens: ClassVar[int] = 512
    held_out: ClassVar[bool] = False
    success_score: ClassVar[float] = 1.0
    isolation: ClassVar[Isolation] = "process"
    call_limit: ClassVar[float] = 120.0

    @abstractmethod
    def tasks(self, split: str) -> Sequence[Mapping[str, Any]]:
        """Return the tasks of "train", "dev" or "test"; empty if there is no such split.

        Each has a text `id`, unique within the split. The same tasks in the same order every time,
        and no task in two splits.
        """

    @abstractmethod
    def reset(self, task: Mapping[str, Any]) -> Sequence[Mapping[str, str]]:
        """Start a task.

        Returns:
            Messages as `{"role": ..., "content": ...}`: perhaps a system message and
            demonstrations, and the user's request at the end.
        """

    @abstractmethod
    def score(self) -> float:
        """Return the score of the episode that has just ended, from 0 to 1."""

    @property
    def tools(self) -> Sequence[Mapping[str, Any]]:
        """The tools' schemas in the OpenAI format; by default those of the decorated methods."""
        return [function_schema(method) for method in tools_of(type(self))]

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Execute a call, whose arguments fit the tool's schema; returns what the model is shown.

        An exception ends the episode as an error of the environment: what a model may do wrong has
        to be answered by a text.
        """
        return str_of(name, getattr(self, name)(**arguments))

    @property
    def finished(self) -> bool:
        """Whether the episode is over, asked after every call and response."""
        return False

    def respond(self, text: str) -> str | None:
        """Return what the user says to a turn without a call; None ends the episode."""
        del text
        return None

    def solution(self) -> Iterator[Move]:
        """Yield calls (name and arguments) and texts that solve the task; a call's result is sent.

        With it `env validate` and `collect --oracle` work without a model.
        """
        raise EnvironmentFailureError(f"{environment_name(type(self))}: has no solution()")

    def state_digest(self) -> str | None:
        """Return a text that differs whenever the state of the task's world differs, or None.

        With it a collection records which turns changed the world, for `train_on:
        state_changing`. It must change nothing, and not contain times or random values.
        """
        return None

    def close(self) -> None:  # noqa: B027  # optional
        """Free what the episode holds; may be called more than once and at any time."""


def environment_name(cls: type[ToolEnvironment]) -> str:
    """Return the environment's name: as declared, or the class's in snake case."""
    return cls.name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()


def str_of(name: str, result: object) -> str:
    """Return a tool's result.

    Raises:
        EnvironmentFailureError: It is no text.
    """
    if not isinstance(result, str):
        found = type(result).__name__
        raise EnvironmentFailureError(f"tool {name}: returned {found}, expected text")
    return result
