"""Dialogue for ScienceWorld in AgentTuning's format: a thought or an action per turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from dataset_builders.conversation import Message
from dataset_builders.environments.base import OracleStep, TextEnvironment
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.environments.history import count_segments
from evaluators.tasks.held_out.science_world.demonstrations import published
from evaluators.tasks.held_out.science_world.environment import THINK, ScienceWorldEnvironment

MAX_ROUNDS = 200

_ACTION = "Action:"
_OPENING = 2


class ScienceWorldDialogue(Dialogue):
    """Dialogue for ScienceWorld: a thought or an action per turn, after one demonstration.

    The instruction is ours. A turn that is not a thought is an action, whatever its text, as in
    AgentTuning's code, which finds the nearest one; so no turn is unparsable. AgentTuning cuts what
    the model is shown to 4,036 GPT-4 tokens, first the demonstration's oldest steps; here
    AgentBench's segments are counted, which need no tokenizer (see `trim_old_turns`).
    """

    world: ClassVar[type[TextEnvironment]] = ScienceWorldEnvironment
    agentinstruct_task: ClassVar[str] = "science_world"
    round_limit: ClassVar[int] = MAX_ROUNDS
    max_new_tokens: ClassVar[int] = 256

    env: ScienceWorldEnvironment

    def read(self, said: str) -> str | None:
        """Return the thought, or the turn without the word "Action:"."""
        said = said.strip()
        return said if said.startswith(THINK) else said.replace(_ACTION, "").strip()

    def write(self, move: OracleStep) -> str:
        """Format the action; a thought is a separate turn."""
        return move.action if move.action.startswith(THINK) else f"{_ACTION} {move.action}"

    def opening(self) -> tuple[Message, ...]:
        """Return the instruction, then the demonstration of the running episode's task."""
        if self.env.demonstrations is not None:
            return *self.prompt.opening, *published(self.env.demonstrations, self.env.task)
        turns: list[Message] = []
        for number, (said, action) in enumerate(self.env.solution):
            turns.append(Message("user", said))
            if number == 0:
                turns.append(Message("assistant", self.prompt.pieces["demonstrated_thought"]))
                turns.append(Message("user", self.prompt.pieces["demonstrated_ok"]))
            turns.append(Message("assistant", self.write(OracleStep("", action))))
        return *self.prompt.opening, *turns

    def trim(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Return the shown part of a dialogue; see `trim_old_turns`."""
        return trim_old_turns(messages, self.env.prompt_segments)


def trim_old_turns(messages: Sequence[Message], max_segments: int) -> tuple[Message, ...]:
    """Remove old turns by AgentTuning's rule for ScienceWorld.

    The demonstration's steps are removed first, oldest first, while its task and first turn stay;
    then the whole demonstration; then the oldest steps of the episode, whose task stays as well.

    Args:
        messages: Instruction and "Ok.", demonstration, then the episode; ends with the user.
        max_segments: What all that is shown must not exceed.
    """
    sizes = [count_segments(message.content) for message in messages]
    turns = list(zip(messages, sizes, strict=True))
    start = next(
        (index for index in range(_OPENING, len(turns)) if _is_start(messages, index)), _OPENING
    )
    first = turns[start][0]
    second = 2 * _OPENING
    while sum(size for _, size in turns) > max_segments and len(turns) > second:
        if turns[second][0] is not first:
            if len(turns) < second + 3:
                break
            del turns[second : second + 2]
        if turns[second][0] is first:
            del turns[_OPENING:second]
    return tuple(message for message, _ in turns)


def _is_start(messages: Sequence[Message], index: int) -> bool:
    """Whether the episode begins at this message: model turns come only after it."""
    later = messages[index + 1 : index + 2]
    return messages[index].role == "user" and all(turn.trained for turn in later)
