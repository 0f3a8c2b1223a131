"""Dialogue for the web shopping task, in AgentBench's format."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from dataset_builders.conversation import Message
from dataset_builders.environments.base import OracleStep, TextEnvironment
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.environments.prompts import Prompt
from dataset_builders.environments.webshop.environment import WebShopEnvironment
from dataset_builders.errors import EnvironmentFailureError

# As in AgentBench 0.1: the action is on the line after "Action:" and ends with the first closing
# bracket.
_ACTION = re.compile(r"[Aa]ction: *\n *((?:search|click)\[.+?])")

_FIRST_PAGE = re.compile(r"WebShop \[SEP\] Instruction: \[SEP\] .*? \[SEP\] Search", re.DOTALL)
_LATER_PAGE = re.compile(r"Instruction: \[SEP\] .*? \[SEP\] Back to Search.*", re.DOTALL)
# Text after a page that lists its actions: a heading and a dictionary.
_TAIL = re.compile(r"(\n\n(?:[^\n]*\n)?)\{['\"]has_search_bar['\"].*?\}", re.DOTALL)
_DEMONSTRATION_TURNS = 4  # a search, a product, an option, the purchase


class WebShopDialogue(Dialogue):
    """Dialogue for WebShop: a thought, then one search or click, per turn; ten turns.

    A turn without an action ends the episode with score 0; an impossible one leaves the
    page as it is. AgentBench shows page and available actions, and so does the built-in prompt
    template; in AgentInstruct's rows, and so with the published template, turns are the page alone.
    AgentBench starts with a demonstration; here it is an option of the environment:
    `demonstration`.
    """

    world: ClassVar[type[TextEnvironment]] = WebShopEnvironment
    agentinstruct_task: ClassVar[str] = "webshop"
    round_limit: ClassVar[int] = 10

    def __init__(self, env: TextEnvironment, prompt: Prompt) -> None:
        super().__init__(env, prompt)
        self._demonstrated = False

    def read(self, said: str) -> str | None:
        """Return the first action after `Action:`, or None."""
        found = _ACTION.search(said)
        return found[1] if found else None

    def write(self, move: OracleStep) -> str:
        """Format a step as AgentBench requires."""
        return f"Thought:\n{move.thought}\n\nAction:\n{move.action}"

    def first_turn(self, observation: str, info: dict[str, Any]) -> str:
        """Format the search page, with its available actions."""
        return self._word("first", observation, info)

    def feedback(self, observation: str, info: dict[str, Any]) -> str:
        """Format a page, with its available actions."""
        return self._word("feedback", observation, info)

    def _word(self, piece: str, observation: str, info: dict[str, Any]) -> str:
        actions = repr(info["admissible_actions"])
        # Actions first: a page may contain braces, and it comes before them.
        return self.prompt.fill(piece, actions=actions, observation=observation)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start a task; see `Dialogue`. The demonstration becomes part of the opening."""
        env = self.env
        if isinstance(env, WebShopEnvironment) and env.demonstration and not self._demonstrated:
            shown = demonstrate(env.folder, self.prompt)
            # In the prompt itself, since its label records in a score what was played.
            self.prompt = replace(self.prompt, opening=(*self.prompt.opening, *shown))
            self._demonstrated = True
        return super().reset(seed=seed, options=options)

    @classmethod
    def published_pieces(cls, rows: Sequence[Sequence[Message]]) -> dict[str, str]:
        """Extract the text around pages: none in the published rows."""
        row = max(rows, key=len)
        first = row[0].content
        later = next((m.content for m in row[1:] if m.role == "user"), first)
        found = _FIRST_PAGE.search(first)
        after = _TAIL.split(first[found.end() :])[0] if found else ""
        return {
            "first": _piece(first, _FIRST_PAGE, ""),
            "feedback": _piece(later, _LATER_PAGE, after),
        }


def _piece(turn: str, page: re.Pattern[str], after: str) -> str:
    """Return a turn with placeholders for the page and its available actions.

    Args:
        turn: The turn.
        page: Finds the page; may include the text after it.
        after: Text between a page and its actions.
    """
    tail = _TAIL.search(turn)
    shown = turn[: tail.start()] if tail else turn
    found = page.search(shown)
    if found is None:
        return "{observation}"
    rest = shown[found.end() :] or (after if shown.endswith(after) else "")
    actions = f"{tail[1]}{{actions}}{turn[tail.end() :]}" if tail else ""
    return f"{shown[: found.start()]}{{observation}}{rest}{actions}"


def demonstrate(folder: Path, prompt: Prompt) -> tuple[Message, ...]:
    """Return a purchase by the oracle for a training goal with one option; not trained on.

    Args:
        folder: Folder of the catalogue.
        prompt: Prompt template for the pages.

    Raises:
        EnvironmentFailureError: The catalogue has no such goal.
    """
    return _demonstrate(folder, tuple(sorted(prompt.pieces.items())))


@lru_cache(maxsize=8)
def _demonstrate(folder: Path, pieces: tuple[tuple[str, str], ...]) -> tuple[Message, ...]:
    dialogue = WebShopDialogue(
        WebShopEnvironment(folder), Prompt("demonstration", (), dict(pieces))
    )
    for task_id in dialogue.task_ids("train"):
        turn, _ = dialogue.reset(options={"task_id": task_id})
        turns = [Message("user", turn)]
        for reply in dialogue.oracle():
            turn, reward, over, _, _ = dialogue.step(reply)
            turns.append(Message("assistant", reply))
            if over:
                break
            turns.append(Message("user", turn))
        if reward == 1.0 and len(turns) == 2 * _DEMONSTRATION_TURNS:
            return tuple(turns)
    raise EnvironmentFailureError("webshop: no training goal serves as a demonstration")
