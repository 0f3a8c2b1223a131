"""A conversation whose actions are native tool calls."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeGuard

from dataset_builders.conversation import Message
from dataset_builders.endpoints.answer import Answer, replace_text
from dataset_builders.environments.base import OracleStep, TextEnvironment
from dataset_builders.environments.dialogue import ROUND_LIMIT, Dialogue
from dataset_builders.environments.prompts import Prompt
from dataset_builders.environments.tool_schemas import (
    INVALID_ARGUMENTS,
    UNKNOWN_TOOL,
    call_fault,
    check_schemas,
    shown_schema,
)
from dataset_builders.tools import ToolCall, parse_tools

CALLS = "calls"
MALFORMED_CALL = "malformed_call"
NO_CALL = "no_call"
AFTER_END = "call_after_end"
CALL_FAULTS = (MALFORMED_CALL, UNKNOWN_TOOL, INVALID_ARGUMENTS, NO_CALL, AFTER_END)
"""What can be wrong with a turn's calls; names in `Trajectory.call_counts`, beside `CALLS`."""

_MALFORMED = (
    "Error: this tool call could not be read, so nothing was executed: {call}\n"
    "A call needs the name of a tool and its arguments as one JSON object."
)
_NO_CALL = "Error: this turn has no tool call. Call a tool."
_EMPTY = "Error: this turn is empty. Call a tool or write an answer."
_LATE = "Not executed: the task had already ended."

Step = tuple[str, float, bool, bool, dict[str, Any]]


class ToolDialogue(Dialogue):
    """Conversation with an environment through tool calls: calls in, tool results out.

    The calls of a turn are executed in their order, each answered by one `tool` message. A call of
    an unknown tool, or with arguments that do not fit the schema, is answered by an error and not
    executed. If the JSON of a call cannot be read, nothing of the turn is executed: the turn is
    stored as text, without loss, and a user message says what could not be read. A turn without a
    call is an action only if `action_of` accepts text, such as a final answer or what a simulated
    user is told; else a user message asks for a call (AgentBench's function-calling version).

    Children implement `schemas`, `action_of` and `call_of`. `info` of `step` has `call_counts` in
    addition: the number of calls and of faults, see `CALL_FAULTS`.

    Args:
        env: The world.
        prompt: Prompt template; see `Dialogue`.

    Raises:
        ConfigError: The schemas are invalid; see `check_schemas`. Raised by `reset`.
    """

    offers_tools: ClassVar[bool] = True
    max_new_tokens: ClassVar[int] = 512

    def __init__(self, env: TextEnvironment, prompt: Prompt) -> None:
        super().__init__(env, prompt)
        self._schemas: Sequence[dict[str, Any]] = ()
        self._pending: tuple[Message, ...] = ()
        self._info: dict[str, Any] = {}

    @abstractmethod
    def schemas(self) -> list[dict[str, Any]]:
        """Return the tools' schemas in the OpenAI format; called after the world's `reset`."""

    @abstractmethod
    def action_of(self, call: ToolCall | str) -> str | None:
        """Return the world's action for a call that fits its schema, or for a turn's text.

        Args:
            call: The call; text if the turn has none.

        Returns:
            None if the text is no action: a tool has to be called.
        """

    @abstractmethod
    def call_of(self, action: str) -> ToolCall | str:
        """Return the call, or the text, that `action_of` turns into this action."""

    def tools(self) -> str:
        """See `Dialogue.tools`."""
        return parse_tools([shown_schema(schema) for schema in self._schemas])

    def parse(self, turn: str) -> str | None:
        """Return the action of a turn's first call or, without one, of its text."""
        if _has_calls(turn):
            return self.action_of(turn.tool_calls[0])
        return super().parse(turn)

    def read(self, said: str) -> str | None:
        """See `Dialogue.read`."""
        return self.action_of(said)

    def write(self, move: OracleStep) -> str:
        """Return a step as a turn: an `Answer` with the thought as text and the call."""
        call = self.call_of(move.action)
        return call if isinstance(call, str) else Answer(move.thought, tool_calls=(call,))

    def has_thought(self, turn: str) -> bool:
        """Whether a turn has text beside its calls; see `Dialogue.has_thought`."""
        return bool(turn.strip()) if _has_calls(turn) else super().has_thought(turn)

    def with_thought(self, turn: str, thought: str) -> str:
        """Return the turn with this text and the same calls; one without a call is unchanged."""
        return replace_text(turn, thought) if _has_calls(turn) else turn

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """See `Dialogue.reset`."""
        observation, info = super().reset(seed=seed, options=options)
        self._schemas, self._pending, self._info = self.schemas(), (), info
        check_schemas(self._schemas, self.name)
        return observation, info

    def assistant_message(self, said: Answer) -> Message:
        """Return the message that stores a turn.

        A turn that cannot be read becomes text; it and an empty one are not trained on.
        """
        thoughts = said.reasoning or None
        if said.malformed:
            return Message("assistant", _spelled(said), reasoning=thoughts)
        calls = _with_ids(said.tool_calls, self.rounds)
        trained = bool(calls or said.strip())
        return Message("assistant", str(said), trained, tool_calls=calls, reasoning=thoughts)

    def observation_messages(self, observation: str) -> tuple[Message, ...]:
        """Return the results of the turn's calls, or what the user says to a turn without one."""
        del observation  # All of them, joined.
        return self._pending

    def step(self, turn: str) -> Step:
        """Process an assistant turn.

        Args:
            turn: An `Answer`, whose calls are executed; plain text is a turn without a call.

        Returns:
            As `Dialogue.step`; the observation joins the results of all calls, those of the last
            turn too.
        """
        said = turn if isinstance(turn, Answer) else Answer(turn)
        calls = _with_ids(said.tool_calls, self.rounds)
        self.rounds += 1
        if said.malformed:
            counts = Counter({CALLS: len(calls), MALFORMED_CALL: len(said.malformed)})
            lines = (_MALFORMED.replace("{call}", call) for call in said.malformed)
            return self._refuse("\n".join(lines), counts)
        return self._execute(calls) if calls else self._answer(str(said))

    def _execute(self, calls: Sequence[ToolCall]) -> Step:
        """Execute the calls of a turn in order."""
        counts, results = Counter({CALLS: len(calls)}), []
        turn = _Turn(self._info)
        for call in calls:
            kind, text = call_fault(call, self._schemas) if not turn.over else (AFTER_END, _LATE)
            if kind:
                counts[kind] += 1
                turn.valid = turn.valid and turn.over
            else:
                text = self._act(str(self.action_of(call)), turn)
            results.append(Message("tool", text, tool_call_id=call.id, name=call.name))
        return self._conclude(results, turn, counts)

    def _answer(self, text: str) -> Step:
        """Process a turn without a call."""
        action = self.action_of(text) if text.strip() else None
        if action is None:
            return self._refuse(_NO_CALL if text.strip() else _EMPTY, Counter({NO_CALL: 1}))
        turn = _Turn(self._info)
        said = self._act(action, turn)
        return self._conclude([] if turn.over else [Message("user", said)], turn, Counter())

    def _refuse(self, text: str, counts: Counter[str]) -> Step:
        """Answer a turn of which nothing was executed."""
        turn = _Turn(self._info | {"valid_action": False}, valid=False)
        return self._conclude([Message("user", text)], turn, counts)

    def _act(self, action: str, turn: _Turn) -> str:
        """Execute an action; return its result as text for the model."""
        observation, turn.reward, turn.over, _, turn.info = self.env.step(action)
        self._observation, self._info = observation, turn.info
        turn.valid = turn.valid and bool(turn.info["valid_action"])
        return observation if turn.over else self.feedback(observation, turn.info)

    def _conclude(self, messages: Sequence[Message], turn: _Turn, counts: Counter[str]) -> Step:
        self._pending = tuple(messages)
        text = "\n\n".join(message.content for message in messages)
        extra = {"valid_format": turn.valid, "call_counts": dict(counts)}
        if turn.over or self.rounds < self.round_limit:
            return text, turn.reward, turn.over, False, turn.info | extra
        ended = self.stop(ROUND_LIMIT, valid_format=turn.valid, truncated=True)
        return text, *ended[1:4], ended[4] | extra


@dataclass(slots=True)
class _Turn:
    """What has become of a turn so far."""

    info: dict[str, Any]
    reward: float = 0.0
    over: bool = False
    valid: bool = True


def _has_calls(turn: str) -> TypeGuard[Answer]:
    return isinstance(turn, Answer) and bool(turn.tool_calls)


def _with_ids(calls: Sequence[ToolCall], round_number: int) -> tuple[ToolCall, ...]:
    """Return the calls with an id each: the model's own, if it is one within the turn."""
    given = {call.id for call in calls}
    seen = {""}
    numbered: list[ToolCall] = []
    for index, call in enumerate(calls):
        name = call.id
        if name in seen:
            name = f"call_{round_number}_{index}"
            while name in given:  # The model has used it for another call.
                name += "_"
        seen.add(name)
        numbered.append(replace(call, id=name))
    return tuple(numbered)


def _spelled(said: Answer) -> str:
    """Return a turn with a malformed call as text."""
    calls = [
        json.dumps({"name": c.name, "arguments": json.loads(c.arguments)}, ensure_ascii=False)
        for c in said.tool_calls
    ]
    return "\n".join(filter(None, (str(said), *calls, *said.malformed)))
