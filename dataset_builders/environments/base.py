"""What an environment is: Gymnasium's interface with text in and text out.

One environment object serves collection, evaluation and tests. `play` in
`dataset_builders.collection.rollout` wraps it into a conversation.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium

from dataset_builders.conversation import Message


class TextEnvironment(gymnasium.Env[str, str]):
    """A task environment whose observations and actions are text.

    Episodes are chosen with `reset(options={"task_id": ...})`. `info` of `reset` and
    `step` carries `task_id`, `split`, `score` (the benchmark's metric in [0, 1], so far),
    `success` (bool), `instruction` (the task's own text) and `valid_format` (whether the
    last action could be parsed; true after `reset`). When an episode ends, `info` also
    carries `exit_reason`. An action is one whole assistant turn, thought included. The
    reward is the score, given with the last step.

    Attributes:
        name: Registry name, such as "database".
        round_limit: Assistant turns after which the episode is truncated.
        max_new_tokens: Tokens an assistant turn may have, as the benchmark sets it.
    """

    name: ClassVar[str]
    round_limit: ClassVar[int]
    max_new_tokens: ClassVar[int]

    @classmethod
    @abstractmethod
    def task_ids(cls, split: str) -> tuple[str, ...]:
        """Identifiers of a split's tasks, in a fixed order.

        Raises:
            ConfigError: The split is unknown.
        """

    @abstractmethod
    def opening(self) -> tuple[Message, ...]:
        """Turns before the first observation: instruction, demonstration, acknowledgement.

        None of them is trained. Valid after `reset`.
        """

    @abstractmethod
    def oracle(self) -> Sequence[str]:
        """Assistant turns, thought and action, that solve the task of the last `reset`."""

    @abstractmethod
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start the task `options["task_id"]`; returns the first observation and `info`."""

    @abstractmethod
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Act; returns observation, reward, terminated, truncated and `info`."""
