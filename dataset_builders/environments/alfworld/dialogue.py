"""ALFWorld as a conversation, by the rules of AgentBench.old."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from dataset_builders.conversation import Message
from dataset_builders.environments.alfworld.demonstrations import demonstration
from dataset_builders.environments.alfworld.environment import AlfworldEnvironment
from dataset_builders.environments.alfworld.matching import (
    has_action,
    nearest_action,
    spoken_action,
)
from dataset_builders.environments.base import OracleStep, TextEnvironment
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.environments.prompts import Prompt

REPETITION = "repetition"

# AgentBench's own text before a demonstration; AgentInstruct's rows contain none.
_PUBLISHED_LEAD = "Here is one example.\n{observation}"
_ROOM = "You are in the middle of a room."

_ALIKE = 3


class AlfworldDialogue(Dialogue):
    """Dialogue for ALFWorld: an optional thought and a command per turn.

    A turn is played as the admissible command most like what its first `ACTION:` line
    says; one without that line is taken as a whole. So every turn can be played: one unlike any
    command gets "Nothing happens.". From the fourth turn on, three equal turns in a row end the
    episode with score 0 (exit reason "repetition"), even where the third one wins. Which commands
    are admissible is not shown.

    `info` carries `action`, the command that was played. `valid_format` is true only
    where the turn says `ACTION:` and the game took the command.

    Differences from AgentBench.old: none known in the rules; it leaves games that broke
    out of its rate, here they count as not solved.
    """

    world: ClassVar[type[TextEnvironment]] = AlfworldEnvironment
    agentinstruct_task: ClassVar[str] = "alfworld"
    round_limit: ClassVar[int] = 35

    env: AlfworldEnvironment

    def __init__(self, env: AlfworldEnvironment, prompt: Prompt) -> None:
        if env.demonstration:
            prompt = replace(prompt, name=f"{prompt.name}+demonstration")
        super().__init__(env, prompt)
        self._turns: list[str] = []
        self._played = ""

    @classmethod
    def published_pieces(cls, rows: Sequence[Sequence[Message]]) -> dict[str, str]:
        """Extract the text before the room in the first turn; later observations have none."""
        lead, found, _ = rows[0][0].content.partition(_ROOM)
        return {
            "first": (lead if found else "") + "{observation}",
            "feedback": "{observation}",
            "demonstration": _PUBLISHED_LEAD,
        }

    def read(self, said: str) -> str:
        """Return the command that a turn stands for; see `matching`."""
        return nearest_action(spoken_action(said), self.env.admissible_actions)

    def has_action(self, turn: str) -> bool:
        """Whether a turn contains `ACTION:`; `read` accepts any turn as a command."""
        return has_action(turn)

    def write(self, move: OracleStep) -> str:
        """Format a step as AgentBench requires, on AgentInstruct's two lines."""
        thought = " ".join(move.thought.replace("ACTION:", "").split())
        act = f"ACTION: {move.action}"
        return f"THOUGHT: {thought}\n {act}" if thought else act

    def opening(self) -> tuple[Message, ...]:
        """Return the prompt's turns and, if requested, a solved game of the same kind."""
        if not self.env.demonstration:
            return self.prompt.opening
        first, *turns = demonstration(self.env, self.write)
        lead = self.prompt.fill("demonstration", observation=first.content)
        return (*self.prompt.opening, replace(first, content=lead), *turns)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """See `Dialogue.reset`."""
        self._turns.clear()
        return super().reset(seed=seed, options=options)

    def step(self, turn: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """See `Dialogue.step`."""
        self._turns.append(turn)
        self._played = self.parse(turn) or ""
        return super().step(turn)

    def stops(self, turn: str) -> str:
        """Apply AgentBench's stop rule: the last three turns are equal, and there are more."""
        del turn
        repeated = len(self._turns) > _ALIKE and len(set(self._turns[-_ALIKE:])) == 1
        return REPETITION if repeated else ""

    def conclude(
        self, turn: str, observation: str, reward: float, over: bool, info: dict[str, Any]
    ) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """See `Dialogue.conclude`; repetition is checked before success."""
        if over and self.stops(turn):
            over = False
        shown, reward, over, cut, info = super().conclude(turn, observation, reward, over, info)
        valid = self.has_action(turn) and bool(info["valid_format"])
        return shown, reward, over, cut, info | {"valid_format": valid, "action": self._played}
