"""An environment as a conversation: prompt template, action format, limits and history.

One class serves collection, evaluation and tests, so that a model is evaluated with the prompts it
was trained on. Formats, parsers and limits are those of AgentBench as AgentTuning used it
(AgentBench.old in its repository): with others the published results cannot be reproduced.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from typing import Any, ClassVar

import gymnasium

from dataset_builders.conversation import Message
from dataset_builders.endpoints.answer import Answer
from dataset_builders.environments.base import OracleStep, TextEnvironment
from dataset_builders.environments.history import trim_history
from dataset_builders.environments.prompts import Prompt, own_prompt
from dataset_builders.errors import EnvironmentFailureError
from dataset_builders.reasoning import spoken

BAD_FORMAT = "bad_format"
ROUND_LIMIT = "round_limit"

_WORD = re.compile(r"\w+")


class Dialogue(gymnasium.Wrapper[str, str, str, str]):
    """Conversation with an environment: assistant turns in, user turns out.

    Children implement `read` and `write`.

    `info` carries what the environment's does and `valid_format`: whether the last turn
    could be parsed as an action that the environment understood. The reward is given
    with the last step.

    Args:
        env: The world.
        prompt: Prompt template: the text around observations, and the turns before the first one.

    Attributes:
        world: Class of the environment.
        agentinstruct_task: Name of its rows in AgentInstruct, such as "db"; "" if it is not there.
        round_limit: Assistant turns after which the episode is truncated.
        max_new_tokens: Tokens an assistant turn may have, as the benchmark sets it.
        offers_tools: Whether actions are native tool calls.
        tool_form: "module:Class" of the same task as a dialogue with tools, which the option
            `dialogue: tools` plays; "" if there is none.
        prompt_template: Prompt template in Python, as `prompt.yaml` has it: `opening`, a list of
            `{"role", "content"}`, and the texts `first` and `feedback` around observations. Not
            needed with a `prompt.yaml` beside the class; with neither, observations stand alone.
        held_out: Whether it is for evaluation only, so that no training data is made of it.
        call_limit: Seconds that a call may take where it runs in a process of its own.
        single_turn: Whether the model is shown nothing of its former turns, so that each
            turn is a conversation of its own in AgentInstruct.
    """

    world: ClassVar[type[TextEnvironment]]
    agentinstruct_task: ClassVar[str] = ""
    round_limit: ClassVar[int]
    max_new_tokens: ClassVar[int] = 128
    offers_tools: ClassVar[bool] = False
    tool_form: ClassVar[str] = ""
    single_turn: ClassVar[bool] = False
    prompt_template: ClassVar[Mapping[str, Any] | None] = None
    held_out: ClassVar[bool] = False
    call_limit: ClassVar[float] = 120.0

    env: TextEnvironment

    def __init__(self, env: TextEnvironment, prompt: Prompt) -> None:
        super().__init__(env)
        self.prompt = prompt
        self.rounds = 0
        self._observation = ""

    @property
    def name(self) -> str:
        """Registry name of the environment."""
        return self.env.name

    def parse(self, turn: str) -> str | None:
        """Return the action of an assistant turn, or None if it has none.

        Thoughts between a model's own marks are removed first (`reasoning`): an action drafted in
        them does not count.
        """
        return self.read(spoken(turn))

    @abstractmethod
    def read(self, said: str) -> str | None:
        """Return the action of a turn without thoughts; None if it has none."""

    def has_action(self, turn: str) -> bool:
        """Whether a turn follows the action format, in any state of the environment.

        Subclasses whose `read` accepts any turn override this with the format's rule.
        """
        return self.parse(turn) is not None

    @abstractmethod
    def write(self, move: OracleStep) -> str:
        """Return a turn that `parse` reads as the step's action."""

    def kept(self, turn: str) -> str:
        """Return an assistant turn as the conversation stores it: whole unless overridden."""
        return turn

    def tools(self) -> str:
        """Return the tools that the policy may call, as JSON text in the OpenAI format.

        "" if actions are written as text. Valid after `reset`.
        """
        return ""

    def assistant_message(self, said: Answer) -> Message:
        """Return the message that stores an assistant turn; called before `step`."""
        return Message("assistant", self.kept(said), trained=True, reasoning=said.reasoning or None)

    def observation_messages(self, observation: str) -> tuple[Message, ...]:
        """Return the messages that follow a turn; called with the observation of `step`."""
        return (Message("user", observation),)

    def has_thought(self, turn: str) -> bool:
        """Whether a turn contains words beyond those that `write` needs for its action.

        A turn without an action counts as having a thought, since none can be added to it.
        """
        action = self.parse(turn)
        if action is None:
            return True
        # Ignoring case: case-insensitive formats may have lowered it.
        bare = Counter(_WORD.findall(self.write(OracleStep("", action)).casefold()))
        return bool(Counter(_WORD.findall(turn.casefold())) - bare)

    def with_thought(self, turn: str, thought: str) -> str:
        """Return the turn with its text replaced by this thought, and the same action.

        It is rewritten in the form of `write`; a turn without an action is unchanged.
        """
        action = self.parse(turn)
        return turn if action is None else self.write(OracleStep(thought, action))

    @classmethod
    def own_prompt(cls) -> Prompt:
        """Load the built-in prompt template: `prompt_template`, or `prompt.yaml` beside the class.

        Raises:
            ConfigError: It has another form.
        """
        return own_prompt(cls.__module__, cls.prompt_template)

    @classmethod
    def published_pieces(cls, rows: Sequence[Sequence[Message]]) -> dict[str, str]:
        """Extract the published text around observations from AgentInstruct's rows.

        Args:
            rows: The turns of every row after the opening; at least one row.

        Returns:
            `first` and `feedback`, and other pieces of the subclass's prompt; each has the
            placeholder `{observation}`.
        """
        del rows
        return {}

    def task_ids(self, split: str) -> tuple[str, ...]:
        """Return the task ids of a split; see `TextEnvironment.task_ids`."""
        return self.env.task_ids(split)

    def state_digest(self) -> str | None:
        """Return the digest of the world's state; see `TextEnvironment.state_digest`.

        Raises:
            EnvironmentFailureError: It is neither text nor None.
        """
        digest: object = self.env.state_digest()
        if digest is None or isinstance(digest, str):
            return digest
        found = type(digest).__name__
        raise EnvironmentFailureError(f"{self.name}: state_digest: found {found}, expected text")

    def opening(self) -> tuple[Message, ...]:
        """Return the turns before the first observation: instruction, example, acknowledgement.

        None of them is trained on. Valid after `reset`.
        """
        return self.prompt.opening

    def first_turn(self, observation: str, info: dict[str, Any]) -> str:
        """Format the first observation."""
        del info
        return self.prompt.fill("first", observation=observation)

    def feedback(self, observation: str, info: dict[str, Any]) -> str:
        """Format a later observation."""
        del info
        return self.prompt.fill("feedback", observation=observation)

    def trim(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Return the part of a dialogue that the model is shown, by AgentBench.old's rule."""
        return trim_history(messages)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start a task; returns the first user turn after `opening()` and `info`."""
        observation, info = self.env.reset(seed=seed, options=options)
        self.rounds, self._observation = 0, observation
        return self.first_turn(observation, info), info | {"valid_format": True}

    def step(self, turn: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Process an assistant turn.

        Returns:
            The next user turn, "" at the end; the reward in [0, 1]; whether the episode
            is over; whether a limit cut it off; `info`.
        """
        self.rounds += 1
        turn = spoken(turn)
        action = self.parse(turn)
        if action is None:
            return self.unparsable(turn)
        observation, reward, over, _, info = self.env.step(action)
        return self.conclude(turn, observation, reward, over, info)

    def unparsable(self, turn: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Handle a turn without an action: ends the episode unless a subclass overrides it."""
        del turn
        return self.stop(BAD_FORMAT, valid_format=False)

    def stops(self, turn: str) -> str:
        """Return the exit reason of a rule that ends the episode after this turn, or ""."""
        del turn
        return ""

    def conclude(
        self, turn: str, observation: str, reward: float, over: bool, info: dict[str, Any]
    ) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Format the environment's answer, unless a rule or the limit ends the episode."""
        self._observation = observation
        info = info | {"valid_format": bool(info["valid_action"])}
        if over:
            return "", reward, True, False, info
        if reason := self.stops(turn):
            return self.stop(reason, valid_format=info["valid_format"])
        if self.rounds >= self.round_limit:
            return self.stop(ROUND_LIMIT, valid_format=info["valid_format"], truncated=True)
        return self.feedback(observation, info), 0.0, False, False, info

    def stop(
        self, exit_reason: str, *, valid_format: bool, truncated: bool = False
    ) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """End the episode; its score is what the environment gives for that, mostly 0."""
        info = self.env.failed(exit_reason) | {"valid_format": valid_format}
        return "", float(info["score"]), not truncated, truncated, info

    def oracle(self) -> Generator[str, str, None]:
        """Yield turns that solve the task; the generator is sent every user turn.

        Raises:
            EnvironmentFailureError: No solution is known for this task.
        """
        moves = self.env.oracle()
        try:
            move = next(moves)
            while True:
                yield self.write(move)
                move = moves.send(self._observation)
        except StopIteration:
            return
