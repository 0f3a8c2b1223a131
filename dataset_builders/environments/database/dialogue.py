"""Dialogue for the database task, in AgentBench.old's format."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, ClassVar

from dataset_builders.conversation import Message
from dataset_builders.environments.base import OracleStep, TextEnvironment
from dataset_builders.environments.database.environment import (
    ANSWER,
    OPERATION,
    DatabaseEnvironment,
)
from dataset_builders.environments.dialogue import ROUND_LIMIT, Dialogue
from dataset_builders.environments.prompts import OWN

MAX_OPERATIONS = 15
"""Maximum statements per episode; the turn after the last one can only answer."""

_ACTION = re.compile(r"Action: (.*?)\n")
_SQL_BLOCK = re.compile(r"```sql\n(.*?)\n```", re.DOTALL)
_FINAL_ANSWER = re.compile(r"\nFinal Answer:(.*)")


class DatabaseDialogue(Dialogue):
    """Dialogue for the DB task: a thought, then an SQL statement or the final answer, per turn.

    There is no demonstration, as in AgentBench. A turn that cannot be parsed ends the
    episode, and scores 0 even if an earlier statement already changed the table as asked;
    only AgentBench's own tasks are then scored by the state, by its rule. The built-in prompt is
    short, so that small models on small machines can train on it.
    """

    world: ClassVar[type[TextEnvironment]] = DatabaseEnvironment
    agentinstruct_task: ClassVar[str] = "db"
    round_limit: ClassVar[int] = MAX_OPERATIONS + 1
    tool_form: ClassVar[str] = (
        "dataset_builders.environments.database.tool_dialogue:DatabaseToolDialogue"
    )

    env: DatabaseEnvironment

    def opening(self) -> tuple[Message, ...]:
        """Return the instruction, which in the built-in prompt names the engine."""
        if self.prompt.name != OWN:
            return self.prompt.opening
        engine = self.prompt.pieces[self.env.backend]
        return tuple(
            replace(message, content=message.content.replace("{engine}", engine))
            for message in self.prompt.opening
        )

    def read(self, said: str) -> str | None:
        """Parse a turn by AgentBench's rule.

        The first `Action:` that a line break follows decides. Of several sql blocks the
        first one counts; its lines are joined. A turn that operates on nothing, or is the
        one after the last operation, is an answer if a line of it, not the first, begins
        with `Final Answer:`.
        """
        if _operates(said) and self.rounds <= MAX_OPERATIONS:
            block = _SQL_BLOCK.search(said)
            return f"{OPERATION}\n{block.group(1).strip().replace(chr(10), ' ')}" if block else None
        answer = _FINAL_ANSWER.search(said)
        return f"{ANSWER}\n{answer.group(1)}" if answer else None

    def write(self, move: OracleStep) -> str:
        """Format a step as AgentBench requires."""
        kind, _, content = move.action.partition("\n")
        if kind == OPERATION:
            return f"{move.thought}\nAction: Operation\n```sql\n{content}\n```"
        return f"{move.thought}\nAction: Answer\nFinal Answer: {content.strip()}"

    def unparsable(self, turn: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """End the episode; exit reason "limit" if the turn was one operation too many."""
        if self.rounds > MAX_OPERATIONS and _operates(turn) and _SQL_BLOCK.search(turn):
            return self.stop(ROUND_LIMIT, valid_format=True, truncated=True)
        return super().unparsable(turn)


def _operates(turn: str) -> bool:
    action = _ACTION.search(turn)
    return action is not None and action.group(1) == OPERATION
