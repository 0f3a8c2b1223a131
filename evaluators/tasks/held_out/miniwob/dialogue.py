"""Dialogue for MiniWoB++: the page, then a thought and an action."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from dataset_builders.conversation import Message
from dataset_builders.environments.base import OracleStep, TextEnvironment
from dataset_builders.environments.dialogue import BAD_FORMAT, Dialogue
from evaluators.tasks.held_out.miniwob.actions import read_command
from evaluators.tasks.held_out.miniwob.environment import HTML, MiniWobEnvironment

MAX_REWORDINGS = 3
"""AgentTuning's `irci`: how often an instruction that fits no form is asked for anew."""

MAX_ROUNDS = 25

_ACTION = re.compile(r"^[ \t>*-]*Action:[ \t]*(.+)$", re.MULTILINE | re.IGNORECASE)


class MiniWobDialogue(Dialogue):
    """Dialogue for MiniWoB++: thought and action per turn, after a demonstration on a made-up page.

    Prompts and procedure are ours: AgentTuning uses RCI's prompts, where a plan is made and
    criticised first, each prompt is independent, and the plan's length limits the actions. A turn's
    last line "Action: ..." counts; a turn that consists only of an action is accepted, too.
    """

    world: ClassVar[type[TextEnvironment]] = MiniWobEnvironment
    agentinstruct_task: ClassVar[str] = "miniwob"
    round_limit: ClassVar[int] = MAX_ROUNDS
    max_new_tokens: ClassVar[int] = 512

    env: MiniWobEnvironment
    _rewordings = 0

    def opening(self) -> tuple[Message, ...]:
        """Return instruction and demonstration; without the latter if pages are shown as HTML."""
        if self.env.observation == HTML:
            return Message("user", self.prompt.pieces["html"]), Message("assistant", "Ok.")
        return self.prompt.opening

    def read(self, said: str) -> str | None:
        """Return the action of a turn, or None if it has no valid form."""
        found = _ACTION.findall(said)
        action = (found[-1] if found else said).strip()
        return action if read_command(action) is not None else None

    def write(self, move: OracleStep) -> str:
        """Format the thought, if there is one, and the action."""
        return f"{move.thought}\nAction: {move.action}".strip()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """See `Dialogue.reset`."""
        self._rewordings = 0
        return super().reset(seed=seed, options=options)

    def step(self, turn: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """See `Dialogue.step`."""
        if self.parse(turn) is not None:
            self._rewordings = 0
        return super().step(turn)

    def unparsable(self, turn: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Request the turn again, up to three times in a row; then end, as in AgentTuning's run."""
        self._rewordings += 1
        if self._rewordings > MAX_REWORDINGS:
            return self.stop(BAD_FORMAT, valid_format=False)
        info = self.env.unchanged() | {"valid_action": False}
        return self.conclude(turn, self.prompt.pieces["reword"], 0.0, False, info)
