"""Base class of environments: Gymnasium's interface with text observations and actions.

An environment takes actions, such as `go to desk 1`, and is independent of prompts.
`dialogue.Dialogue` wraps it into a conversation.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import gymnasium
from gymnasium.error import ResetNeeded

from dataset_builders.environments.episode_checks import check_score, check_text
from dataset_builders.environments.text_space import AnyText
from dataset_builders.errors import ConfigError, EnvironmentFailureError, SourceNotFoundError


@dataclass(frozen=True, slots=True)
class OracleStep:
    """Next step of an oracle.

    Attributes:
        thought: The reason, in one or two sentences, as a model would write before it acts.
        action: Argument of the environment's `step`.
    """

    thought: str
    action: str


Isolation = Literal["inline", "thread", "process"]

Oracle = Generator[OracleStep, str, None]
"""Generator that yields steps and is sent the observation after each."""


@dataclass(frozen=True, slots=True)
class ResetResult:
    """Start of an episode.

    Attributes:
        observation: First observation.
        instruction: The task's own text.
        info: Further entries of `info`, such as `admissible_actions`.
    """

    observation: str
    instruction: str
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepResult:
    """Result of an action.

    Attributes:
        observation: Next observation.
        exit_reason: Why the episode is over, such as "answered"; "" while it is running.
        score: The benchmark's metric in [0, 1], final or so far.
        valid: Whether the environment understood the action.
        info: Further entries of `info`.
    """

    observation: str = ""
    exit_reason: str = ""
    score: float = 0.0
    valid: bool = True
    info: dict[str, Any] = field(default_factory=dict)


class TextEnvironment(gymnasium.Env[str, str]):
    """A task environment whose observations and actions are text.

    Episodes are chosen with `reset(options={"task_id": ...})` or `{"split": ...,
    "index": ...}`; without either a training task is drawn. Task identifiers read
    `<name>-<split>-<rest>`. `info` of `reset` and `step` carries `task_id`, `split`,
    `score` (the benchmark's metric in [0, 1], so far), `success` (bool), `instruction`
    (the task's own text) and `valid_action` (whether the environment understood the last action;
    true after `reset`). When an episode ends, `info` also carries `exit_reason`. The reward is the
    score, given with the last step.

    Making an object starts nothing and reads as little as it can: that is left to
    `task_ids` and `reset`. Children implement `task_ids`, `_begin` and `_act`, and
    `_end` where an episode holds something.

    Args:
        data: Folder of the environment's data, where it needs one; see `data.find_data`.
        render_mode: Gymnasium's; nothing is ever drawn.

    Attributes:
        name: Registry name, such as "database".
        success_score: Smallest score that counts as success, and the reward from which
            AgentInstruct kept a trajectory (paper, section 2.1.3).
        isolation: Where `step` may run: "inline" where it takes well under a
            millisecond, "thread" where objects may live in threads, "process" where a
            process holds one object only.
        data_names: Names under which a folder of data sets may hold this one's.
        idle_action: An action that the world takes and that brings no task further.
    """

    name: ClassVar[str]
    success_score: ClassVar[float] = 1.0
    isolation: Isolation = "thread"
    data_names: ClassVar[tuple[str, ...]] = ()
    idle_action: ClassVar[str]

    observation_space = AnyText()
    action_space = AnyText()

    def __init__(self, data: str | Path | None = None, render_mode: str | None = None) -> None:
        self.data = data
        self.render_mode = render_mode
        self._task_id = ""
        self._instruction = ""
        self._running = False

    @abstractmethod
    def task_ids(self, split: str) -> tuple[str, ...]:
        """Return the task ids of a split, in a fixed order.

        Raises:
            ConfigError: The split is unknown.
            SourceNotFoundError: The data is missing; the message states what to put where.
            DataError: A data file is invalid.
        """

    def task_keys(self, task_id: str) -> tuple[str, ...]:
        """Return what makes a task the same as one of another split, such as its question.

        No key may be a key of tasks in two splits. Without any, only ids are compared.
        """
        del task_id
        return ()

    @abstractmethod
    def _begin(self, task_id: str) -> ResetResult:
        """Start a task; an unknown one is a ConfigError."""

    @abstractmethod
    def _act(self, action: str) -> StepResult:
        """Execute an action of the running episode."""

    def _end(self) -> None:
        """Free the episode's resources; may be called more than once and at any time."""

    def state_digest(self) -> str | None:
        """Return a text that differs whenever the state of the running episode's world differs.

        A collection compares it before and after each turn, to record which turns changed the
        world (`train_on: state_changing`). Reading the world must leave it the same.

        Returns:
            None if the environment does not know.
        """
        return None

    def oracle(self) -> Oracle:
        """Yield steps that solve the task of the last `reset`, without a model.

        Raises:
            EnvironmentFailureError: No solution is known for this task.
        """
        raise EnvironmentFailureError(f"{self.name}: no oracle for {self._task_id}")

    @classmethod
    def missing(cls, data: str | Path | None = None) -> str:
        """Return why the environment cannot run here, with the remedy, in one line.

        Where a command is the remedy, the line ends in it, for `agenttuning env list`.

        Returns:
            "" if nothing is missing.
        """
        del data
        return ""

    @classmethod
    def stand_in(cls, data: str | Path | None = None) -> str:
        """Return the name of the placeholder data used if real data is absent, or "".

        It serves for trying things out; an environment with placeholder data has an option
        `made_up`, without which nothing is collected from it.

        Returns:
            "" if the data are real.
        """
        del data
        return ""

    @classmethod
    def setup(cls, data: str | Path | None, say: Callable[[str], None]) -> None:
        """Perform the environment's one-time setup on a machine; may be called again.

        Args:
            data: Folder of the data to set up from.
            say: Called with progress messages.

        Raises:
            SourceNotFoundError: Something is missing that this cannot set up.
        """
        if missing := cls.missing(data):
            raise SourceNotFoundError(missing)
        say(f"{cls.name}: nothing to set up")

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start a task.

        Args:
            seed: Seeds the draw of a task if `options` names none.
            options: `{"task_id": ...}` or `{"split": ..., "index": ...}`.

        Raises:
            ConfigError: There is no such task.
            MissingExtraError: The environment needs an optional dependency.
            SourceNotFoundError: The data is missing.
        """
        super().reset(seed=seed)
        task_id = self._choose(options or {})
        self.close()
        start = self._begin(task_id)
        check_text(self.name, start.observation)
        self._task_id, self._instruction, self._running = task_id, start.instruction, True
        return start.observation, self._info(StepResult(info=start.info))

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Execute an action.

        Returns:
            Observation, reward, whether the episode is over, False (truncation is the dialogue's),
            `info`.

        Raises:
            gymnasium.error.ResetNeeded: No episode is running.
            EnvironmentFailureError: The observation is no text, or the score is not in [0, 1].
        """
        if not self._running:
            raise ResetNeeded("no episode is running; call reset")
        outcome = self._act(action)
        over = bool(outcome.exit_reason)
        check_text(self.name, outcome.observation)
        if over:
            check_score(self.name, outcome.score)
        if over:
            self.close()
        return outcome.observation, outcome.score if over else 0.0, over, False, self._info(outcome)

    def close(self) -> None:
        """End the episode and free its resources; may be called more than once."""
        self._running = False
        self._end()

    def failed(self, exit_reason: str) -> dict[str, Any]:
        """Abort the running episode without success; returns its `info`."""
        self.close()
        return self._info(StepResult(exit_reason=exit_reason))

    def _choose(self, options: dict[str, Any]) -> str:
        if unknown := sorted(set(options) - {"task_id", "split", "index"}):
            raise ConfigError(
                f"{self.name}: reset: found {unknown[0]!r}, expected task_id, or split and index"
            )
        if "task_id" in options:
            return str(options["task_id"])
        split = str(options.get("split", "train"))
        ids = self.task_ids(split)
        if not ids:
            raise ConfigError(f"{self.name}: split {split!r}: found no tasks in the data")
        index = options.get("index")
        if index is None:
            index = int(self.np_random.integers(len(ids)))
        if not hasattr(index, "__index__") or not 0 <= index < len(ids):
            raise ConfigError(f"{self.name}: index: found {index!r}, expected 0 to {len(ids) - 1}")
        return ids[index]

    def _info(self, outcome: StepResult) -> dict[str, Any]:
        info = {
            "task_id": self._task_id,
            "split": self._task_id.split("-")[1],
            "score": outcome.score,
            "success": outcome.score >= self.success_score,
            "instruction": self._instruction,
            "valid_action": outcome.valid,
            **outcome.info,
        }
        if outcome.exit_reason:
            info["exit_reason"] = outcome.exit_reason
        return info
