"""Dialogue for Mind2Web's multiple choice, in AgentBench's format."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from dataset_builders.conversation import Message, parse_messages
from dataset_builders.environments.base import OracleStep, TextEnvironment
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.environments.mind2web.environment import Mind2WebEnvironment, listed
from dataset_builders.environments.mind2web.scoring import NONE, parse_choice, parse_operation
from dataset_builders.environments.prompts import Prompt
from dataset_builders.errors import DataError, SourceNotFoundError

# Layout of AgentInstruct's turns, for any text between the parts.
_PUBLISHED = re.compile(
    r"(?P<before>.*?)<html.*</html>(?P<task>.*?\nTask: ).*?(?P<previous>\nPrevious actions:\n).*"
    r"(?P<choices>\n[^\n]+\n\nA\. [^\n]*)(?:\n[B-K]\. .*)?",
    re.DOTALL,
)


class Mind2WebDialogue(Dialogue):
    """Dialogue for Mind2Web: a thought, a letter, an operation and its value, each turn on its own.

    The model is shown the demonstrations, if any, and the current page, but not its earlier turns.
    A turn without an answer counts as A, as in AgentBench, and an episode never ends because of its
    format.
    """

    world: ClassVar[type[TextEnvironment]] = Mind2WebEnvironment
    agentinstruct_task: ClassVar[str] = "mind2web"
    round_limit: ClassVar[int] = 3
    single_turn: ClassVar[bool] = True

    def __init__(self, env: TextEnvironment, prompt: Prompt) -> None:
        shown = getattr(env, "demonstrations", None)
        if shown is not None:
            turns = _read_demonstrations(Path(shown))
            prompt = replace(prompt, opening=(*prompt.opening, *turns))
        super().__init__(env, prompt)

    def read(self, said: str) -> str | None:
        """Return letter, line break, operation and value; each may be empty."""
        return f"{parse_choice(said)}\n{parse_operation(said)}"

    def has_action(self, turn: str) -> bool:
        """Whether a turn answers with a letter; `parse` accepts turns without one, too."""
        return bool(parse_choice(turn))

    def write(self, move: OracleStep) -> str:
        """Format a step as AgentInstruct does."""
        letter, _, action = move.action.partition("\n")
        if letter == NONE:
            return f"Thought: {move.thought}\nAnswer: {NONE}. None of the above"
        operation, _, value = action.partition(" ")
        turn = f"Thought: {move.thought}\nAnswer: {letter}."
        turn += f"\nAction: {operation}" if operation else ""
        return turn + (f"\nValue: {value}" if value else "")

    @classmethod
    def published_pieces(cls, rows: Sequence[Sequence[Message]]) -> dict[str, str]:
        """Extract the text around page, task, earlier actions and choices."""
        layouts = Counter(
            f"{found['before']}{{page}}{found['task']}{{task}}{found['previous']}{{previous}}"
            f"{found['choices']}\n{{choices}}"
            for row in rows
            if (found := _PUBLISHED.fullmatch(row[0].content))
        )
        if not layouts:
            raise DataError(
                f"{cls.agentinstruct_task}: found no first turn with a page, 'Task: ', "
                "'Previous actions:' and 'A. ', expected AgentInstruct's"
            )
        layout = layouts.most_common(1)[0][0]
        return {"first": layout, "feedback": layout}

    def first_turn(self, observation: str, info: dict[str, Any]) -> str:
        """Format the current page with the prompt template."""
        del observation
        return self._worded("first", info)

    def feedback(self, observation: str, info: dict[str, Any]) -> str:
        """Format the page around the next candidates with the same template."""
        del observation
        return self._worded("feedback", info)

    def trim(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Return the demonstrations and the current page."""
        return (*self.prompt.opening, messages[-1])

    def _worded(self, piece: str, info: dict[str, Any]) -> str:
        # From the last placeholder to the first: a value may look like a placeholder.
        return self.prompt.fill(
            piece,
            choices="\n".join(listed(info["choices"])),
            previous="\n".join(info["previous"]) or "None",
            task=info["instruction"],
            page=info["page"],
        )


def _read_demonstrations(path: Path) -> tuple[Message, ...]:
    try:
        turns = parse_messages(json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise SourceNotFoundError(f"{path}: demonstrations: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path}: demonstrations: {error}") from error
    # The benchmark's own file ends with a turn into which the current page is inserted.
    if turns and turns[-1].role == "user":
        turns = turns[:-1]
    return tuple(replace(turn, trained=False) for turn in turns)
