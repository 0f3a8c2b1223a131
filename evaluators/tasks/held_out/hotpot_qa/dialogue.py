"""Dialogue for HotpotQA in ReAct's format: thought, action, observation."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from dataset_builders.environments.base import OracleStep, TextEnvironment
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.environments.prompts import Prompt
from evaluators.tasks.held_out.hotpot_qa.demonstrations import with_demonstrations
from evaluators.tasks.held_out.hotpot_qa.environment import HotpotQaEnvironment, read_action

_ACTION = re.compile(r"^\s*Action(?: ?\d+)?:(.*)$", re.MULTILINE)
_BARE = re.compile(r"^\s*((?:search|lookup|finish)\s*\[.*\])", re.MULTILINE | re.IGNORECASE)


class HotpotQaDialogue(Dialogue):
    """Dialogue for HotpotQA: a thought and an action per turn, ten at most (AgentTuning, HotpotQA).

    A turn that cannot be parsed does not end the episode, but costs one of the steps.
    """

    world: ClassVar[type[TextEnvironment]] = HotpotQaEnvironment
    agentinstruct_task: ClassVar[str] = ""
    round_limit: ClassVar[int] = 10
    max_new_tokens: ClassVar[int] = 256

    env: HotpotQaEnvironment

    def __init__(self, env: HotpotQaEnvironment, prompt: Prompt) -> None:
        super().__init__(env, with_demonstrations(prompt, env.demonstrations))

    def read(self, said: str) -> str | None:
        """Return the text after the first `Action:`, or else the first line that is an action."""
        found = _ACTION.search(said) or _BARE.search(said)
        if found is None:
            return None
        action = found.group(1).strip().rstrip(".")
        return action if read_action(action)[0] else None

    def write(self, move: OracleStep) -> str:
        """Format thought and action."""
        return f"Thought: {move.thought}\nAction: {move.action}"

    def unparsable(self, turn: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Reply with the expected format."""
        observation, reward, over, _, info = self.env.step("")
        return self.conclude(turn, observation, reward, over, info)
