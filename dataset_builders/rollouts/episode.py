"""A running episode, isolated from failures of its environment.

Collection, evaluation and oracles all use it; see `engine`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from dataset_builders.conversation import Message
from dataset_builders.endpoints.answer import read_answer
from dataset_builders.endpoints.reply import CONTEXT_FULL, Reply
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.errors import (
    ConfigError,
    EnvironmentFailureError,
    MissingExtraError,
    SourceNotFoundError,
)

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

ENVIRONMENT_ERROR = "environment_error"

_MORE = "\ufffd"
_DETAILS = ("kind", "backend")

# Errors that the user has to fix: they would affect every episode.
_RAISED = (ConfigError, MissingExtraError, SourceNotFoundError)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A played episode.

    Attributes:
        task_id: The task.
        environment: Name of the environment.
        split: Split of the task, or "" if the environment failed before returning it.
        messages: All turns; exactly the policy's own are trained on, but for those with a tool call
            that could not be read. The environment's reaction to the last action is left out, as
            in AgentInstruct; results of tools are not.
        reward: The benchmark's score in [0, 1].
        exit_reason: The dialogue's, such as "answered", "bad_format" or "round_limit", or
            one of "context_full" and "environment_error", or one of the collector's.
        num_rounds: Turns that the policy took.
        valid_rounds: Those whose action could be parsed.
        success: Whether the reward reaches what the environment counts as success.
        prompt: Which wording was played, such as "own:1f0c9a3e".
        details: What a record of the score should tell beside it, where the environment
            says so: `kind` of the task, `backend`.
        error: What broke, where the environment or the endpoint did.
        cut_turns: Turns that were cut at the token limit, and whose cut end the messages
            hold: an environment may keep a turn only up to a point.
        dropped_calls: Turns that came with native tool calls, which were not requested.
        tools: JSON text of the tools that the policy could call, in the OpenAI format; "" if the
            dialogue is text.
        call_counts: Tool calls ("calls") and what was wrong with some; see
            `tool_dialogue.CALL_FAULTS`.
        state_changes: For each of the policy's turns, whether it changed the state of the world or
            ended the task; empty if that was not recorded, or the environment does not know.
    """

    task_id: str
    environment: str
    split: str
    messages: tuple[Message, ...]
    reward: float
    exit_reason: str
    num_rounds: int
    valid_rounds: int
    success: bool = False
    prompt: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    cut_turns: int = 0
    dropped_calls: int = 0
    tools: str = ""
    call_counts: Mapping[str, int] = field(default_factory=dict)
    state_changes: tuple[bool, ...] = ()


@dataclass(slots=True, eq=False)
class Episode:
    """A running episode.

    Attributes:
        index: Its number among the tasks played.
        task_id: The task.
        dialogue: What it is played in; None once that has been given back.
        messages: The dialogue so far, whole.
        exit_reason: "" while the episode is in play.
        ended_itself: Whether the environment ended the episode and can play another one.
        tools: Tools that the policy may call; see `Dialogue.tools`.
        call_counts: See `Trajectory`.
        marks_state: Whether to record which turns change the world; not in evaluation, where it
            would only cost time.
        state_changes: See `Trajectory`.
    """

    index: int
    task_id: str
    dialogue: Dialogue | None = None
    split: str = ""
    messages: list[Message] = field(default_factory=list)
    reward: float = 0.0
    exit_reason: str = ""
    num_rounds: int = 0
    valid_rounds: int = 0
    success: bool = False
    prompt: str = ""
    details: dict[str, str] = field(default_factory=dict)
    error: str = ""
    cut_turns: int = 0
    dropped_calls: int = 0
    ended_itself: bool = False
    tools: str = ""
    call_counts: Counter[str] = field(default_factory=Counter)
    marks_state: bool = False
    state_changes: list[bool] = field(default_factory=list)
    _state: str | None = None
    _oracle: Generator[str, str, None] | None = None

    def start(self, dialogue: Dialogue) -> None:
        """Start the task."""
        self.dialogue = dialogue
        observation, info = dialogue.reset(options={"task_id": self.task_id})
        self.split, self.prompt = str(info["split"]), dialogue.prompt.label
        self.details = {name: str(info[name]) for name in _DETAILS if name in info}
        self.tools = dialogue.tools()
        opening = [*dialogue.opening(), Message("user", observation)]
        self.messages = dialogue.prompt.extended(opening)
        self._state = dialogue.state_digest() if self.marks_state else None

    def shown(self) -> tuple[Message, ...]:
        """Return the dialogue as shown to the model: old turns may be omitted."""
        return self.dialogue.trim(self.messages) if self.dialogue else tuple(self.messages)

    def act(self, reply: Reply) -> None:
        """Process the policy's turn.

        Reasoning is stored with the turn and not passed to the environment. If a turn did not fit
        the model's context, the reward reached so far counts.
        """
        if self.dialogue is None:
            self.exit_reason = CONTEXT_FULL
            return
        if reply.finish_reason == CONTEXT_FULL:
            _, reward, _, _, info = self.dialogue.stop(
                CONTEXT_FULL, valid_format=False, truncated=True
            )
            self._end(float(reward), CONTEXT_FULL, bool(info["success"]))
            return
        said = read_answer(reply.answer())
        message = self.dialogue.assistant_message(said)
        self.messages.append(message)
        self.num_rounds += 1
        self.cut_turns += said.cut and message.trained and self._keeps_end_of(said)
        self.dropped_calls += reply.calls > 0
        observation, reward, terminated, truncated, info = self.dialogue.step(said)
        self.valid_rounds += bool(info["valid_format"])
        self.call_counts.update(info.get("call_counts", {}))
        over = terminated or truncated
        self._note_change(over, valid=bool(info["valid_format"]))
        if not over or (self.tools and observation):
            self.messages.extend(self.dialogue.observation_messages(observation))
        if over:
            self._end(float(reward), str(info["exit_reason"]), bool(info["success"]))

    def _note_change(self, over: bool, *, valid: bool) -> None:
        """Record whether the turn changed the world; one that ends the task does."""
        if self._state is None or self.dialogue is None:
            return
        before, changed = self._state, valid
        if not over:  # Afterwards there is no world to look at.
            self._state = self.dialogue.state_digest()
            changed = self._state != before
        self.state_changes.append(changed)

    def _end(self, reward: float, exit_reason: str, success: bool) -> None:
        self.reward, self.exit_reason, self.success = reward, exit_reason, success
        self.ended_itself = True

    def fail(self, reason: str, error: str = "") -> None:
        """Abort the episode with reward 0."""
        self.exit_reason, self.reward, self.success = reason, 0.0, False
        self.error, self.ended_itself = error, False

    def _keeps_end_of(self, reply: str) -> bool:
        """Whether the conversation keeps the end of a turn, and so an extension of it too."""
        assert self.dialogue is not None
        return self.dialogue.kept(reply + _MORE).endswith(_MORE)

    def oracle_turn(self) -> str:
        """Return the oracle's next turn.

        Raises:
            EnvironmentFailureError: It has none left, or no solution is known.
        """
        if self.dialogue is None:
            raise EnvironmentFailureError("no episode is running")
        try:
            if self._oracle is None:
                self._oracle = self.dialogue.oracle()
                return next(self._oracle)
            return self._oracle.send(self.messages[-1].content)
        except StopIteration:
            turns = f"the oracle's {self.num_rounds} turns"
            raise EnvironmentFailureError(f"{turns} end no episode") from None

    def shield(self, call: Callable[..., _T], *arguments: object) -> _T | None:
        """Run environment code; if it fails, only this episode ends.

        An environment is an external program (a game, a browser, a server), whose failure after an
        hour must not affect other episodes. Errors that the user has to fix would affect every
        episode, so they are raised.
        """
        try:
            return call(*arguments)
        except _RAISED:
            raise
        except Exception as error:
            self.fail(ENVIRONMENT_ERROR, f"{type(error).__name__}: {error}")
            return None

    def trajectory(self, environment: str) -> Trajectory:
        """Return the episode so far as a trajectory."""
        return Trajectory(
            task_id=self.task_id,
            environment=environment,
            split=self.split,
            messages=tuple(self.messages),
            reward=self.reward,
            exit_reason=self.exit_reason,
            num_rounds=self.num_rounds,
            valid_rounds=self.valid_rounds,
            success=self.success,
            prompt=self.prompt,
            details=self.details,
            error=self.error,
            cut_turns=self.cut_turns,
            dropped_calls=self.dropped_calls,
            tools=self.tools,
            call_counts=dict(self.call_counts),
            state_changes=tuple(self.state_changes),
        )


def close_quietly(dialogue: Dialogue) -> None:
    """Close a dialogue after its episode; an error does not affect the result."""
    try:
        dialogue.close()
    except Exception:
        # Boundary to external programs, as in `Episode.shield`.
        _log.warning("environment %s failed to close", dialogue.name, exc_info=True)
