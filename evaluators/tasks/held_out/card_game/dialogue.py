"""Dialogue for the card game: thinking, then a move in JSON."""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar

from dataset_builders.environments.base import OracleStep, TextEnvironment
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.environments.prompts import Prompt
from evaluators.tasks.held_out.card_game.environment import BAD_ACTION, TRIES, CardGameEnvironment
from evaluators.tasks.held_out.card_game.rules import TURN_LIMIT

_OBJECT = re.compile(r"\{[^{}]*\}")
_NEEDED = {"guess": "guess_type", "act": "pick_fish"}


class CardGameDialogue(Dialogue):
    """Dialogue for the card game: one turn for the guess, one for the action.

    The first JSON object in a turn that is a legal move counts. If there is none, a guess is
    skipped, and an action is requested again; the fifth consecutive failure loses the game, as in
    AgentBench, and so does repeating a rejected turn, as all of AgentBench's five tries would under
    greedy decoding.
    """

    world: ClassVar[type[TextEnvironment]] = CardGameEnvironment
    agentinstruct_task: ClassVar[str] = ""
    round_limit: ClassVar[int] = (TURN_LIMIT // 2 + 1) * (1 + TRIES)
    max_new_tokens: ClassVar[int] = 512

    env: CardGameEnvironment

    def __init__(self, env: CardGameEnvironment, prompt: Prompt) -> None:
        super().__init__(env, prompt)
        self._refused = ""

    def stops(self, turn: str) -> str:
        """Lose the game if a rejected turn is repeated."""
        again = self.env.refused and turn == self._refused
        self._refused = turn if self.env.refused else ""
        return BAD_ACTION if again else ""

    def read(self, said: str) -> str | None:
        """Return the move as JSON."""
        moves = [move for text in _OBJECT.findall(said) if (move := _read(text)) is not None]
        allowed = [move for move in moves if self.env.legal(move)]
        legal = allowed or [move for move in moves if not move or _NEEDED[self.env.phase] in move]
        return json.dumps(legal[0]) if legal else None

    def write(self, move: OracleStep) -> str:
        """Format thought and move."""
        return f"{move.thought}\n{move.action}"

    def feedback(self, observation: str, info: dict[str, Any]) -> str:
        """Format the current state, and whether the last action must be chosen again."""
        del info
        piece = "again" if self.env.refused else self.env.phase
        return self.prompt.fill(piece, observation=observation)

    def first_turn(self, observation: str, info: dict[str, Any]) -> str:
        """Format the initial state."""
        del info
        return self.prompt.fill("guess", observation=observation)

    def unparsable(self, turn: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Handle a turn without a move: the environment treats it as no move or an illegal one."""
        observation, reward, over, _, info = self.env.step("null")
        return self.conclude(turn, observation, reward, over, info | {"valid_action": False})


def _read(text: str) -> dict[str, Any] | None:
    try:
        move = json.loads(text.replace("'", '"'))
    except ValueError:
        return None
    return move if isinstance(move, dict) else None
