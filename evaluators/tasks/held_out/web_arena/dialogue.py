"""Dialogue for WebArena: each turn shows only the current page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

from dataset_builders.conversation import Message
from dataset_builders.environments.base import OracleStep, TextEnvironment
from dataset_builders.environments.dialogue import BAD_FORMAT, Dialogue
from dataset_builders.environments.prompts import Prompt
from evaluators.tasks.held_out.web_arena import actions
from evaluators.tasks.held_out.web_arena.environment import WebArenaEnvironment

REPEATED = "repeated_action"
THRESHOLD = 3
"""Turns in a row without an action, or with the same one, that end an episode."""

_FENCED = re.compile(r"```(.*?)```", re.DOTALL)


class WebArenaDialogue(Dialogue):
    """Dialogue for WebArena: reasoning, then an action between triple backticks (AgentTuning).

    The model sees the task, the page and its last action, but no earlier turn. An episode ends
    after three consecutive turns that cannot be parsed, after the same action three times in a row,
    or after the same text was typed into the same field three times in all.
    """

    world: ClassVar[type[TextEnvironment]] = WebArenaEnvironment
    agentinstruct_task: ClassVar[str] = ""
    round_limit: ClassVar[int] = 30
    max_new_tokens: ClassVar[int] = 384
    single_turn: ClassVar[bool] = True

    env: WebArenaEnvironment

    def __init__(self, env: WebArenaEnvironment, prompt: Prompt) -> None:
        super().__init__(env, prompt)
        self._done: list[str] = []
        self._page = ""

    def read(self, said: str) -> str | None:
        """Return the content of the first pair of backticks, if it is an action."""
        found = _FENCED.search(said)
        action = found.group(1).strip() if found else ""
        return action if actions.read(action) is not None else None

    def write(self, move: OracleStep) -> str:
        """Format reasoning and action."""
        return f"{move.thought} My next action is ```{move.action}```"

    def trim(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Return the instruction, the examples and the current page."""
        return (*self.prompt.opening, messages[-1])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """See `Dialogue.reset`."""
        self._done = []
        return super().reset(seed=seed, options=options)

    def first_turn(self, observation: str, info: dict[str, Any]) -> str:
        """Format the page and the task."""
        return self.feedback(observation, info)

    def feedback(self, observation: str, info: dict[str, Any]) -> str:
        """Format the page, the task and the last action."""
        self._page = observation
        last = self._done[-1] if self._done else "nothing yet"
        # From the last placeholder to the first: a value may look like a placeholder.
        return self.prompt.fill(
            "page",
            last=last or "none that could be read",
            task=str(info["instruction"]),
            observation=observation,
        )

    def step(self, turn: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """See `Dialogue.step`."""
        self._done.append(self.parse(turn) or "")
        return super().step(turn)

    def unparsable(self, turn: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Do nothing and show the page again."""
        observation, reward, over, _, info = self.env.step(actions.NO_ACTION)
        info = info | {"valid_action": False}
        return self.conclude(turn, observation or self._page, reward, over, info)

    def stops(self, turn: str) -> str:
        """Apply WebArena's early-stopping rules."""
        del turn
        last = self._done[-THRESHOLD:]
        if len(last) == THRESHOLD and not any(last):
            return BAD_FORMAT
        if not last[-1]:
            return ""
        typed = last[-1].startswith("type")
        times = self._done.count(last[-1]) if typed else last.count(last[-1])
        return REPEATED if times >= THRESHOLD else ""
