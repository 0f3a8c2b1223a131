"""The operating system task with tool calls, as in AgentBench's function-calling version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from dataset_builders.endpoints.answer import Answer
from dataset_builders.environments.base import OracleStep, TextEnvironment
from dataset_builders.environments.operating_system.dialogue import shell_feedback
from dataset_builders.environments.operating_system.environment import (
    ANSWER,
    BASH,
    FINISH,
    OperatingSystemEnvironment,
)
from dataset_builders.environments.tool_dialogue import ToolDialogue
from dataset_builders.environments.tool_schemas import function_schema
from dataset_builders.tools import ToolCall

RUN = "bash_action"
DONE = "finish_action"
SAY = "answer_action"

_ARGUMENTS = {RUN: "script", DONE: "thought", SAY: "answer"}
_KINDS = {RUN: BASH, DONE: FINISH, SAY: ANSWER}


class OperatingSystemToolDialogue(ToolDialogue):
    """Dialogue for the OS task with the tools `bash_action`, `finish_action`, `answer_action`.

    Names and arguments are those of AgentBench's function-calling version; the prompt, without a
    solved problem, is ours.
    """

    world: ClassVar[type[TextEnvironment]] = OperatingSystemEnvironment
    agentinstruct_task: ClassVar[str] = "os"
    round_limit: ClassVar[int] = 8
    prompt_template: ClassVar[Mapping[str, Any] | None] = {
        "opening": [
            {
                "role": "system",
                "content": "You work in the shell of a Linux machine, as root. You are given a "
                "problem: either a question about the machine or a change to make on it. Use "
                "the tools. Of a long output you see only the start. A script gets no input: do "
                "not run anything that waits for it.",
            }
        ],
        "empty": "Nothing was printed.",
        "truncated": "\n[the rest is left out]",
    }

    def schemas(self) -> list[dict[str, Any]]:
        """See `ToolDialogue.schemas`."""

        def text(meaning: str) -> dict[str, Any]:
            return {"type": "string", "description": meaning}

        return [
            function_schema(RUN, "Run a bash script; returns its output.", script=text("Script.")),
            function_schema(
                DONE, "End the task when the change is made.", thought=text("Why it is complete.")
            ),
            function_schema(
                SAY, "Answer the question, which ends the task.", answer=text("The answer alone.")
            ),
        ]

    def action_of(self, call: ToolCall | str) -> str | None:
        """See `ToolDialogue.action_of`; text is no action."""
        if isinstance(call, str):
            return None
        content = json.loads(call.arguments)[_ARGUMENTS[call.name]]
        return FINISH if call.name == DONE else f"{_KINDS[call.name]}\n{content}"

    def call_of(self, action: str) -> ToolCall | str:
        """See `ToolDialogue.call_of`."""
        kind, _, content = action.partition("\n")
        name = next(name for name, known in _KINDS.items() if known == kind)
        return ToolCall(name, json.dumps({_ARGUMENTS[name]: content}, ensure_ascii=False))

    def write(self, move: OracleStep) -> str:
        """Return a step as a turn; the thought of the last one is the tool's argument."""
        if move.action != FINISH:
            return super().write(move)
        thought = json.dumps({_ARGUMENTS[DONE]: move.thought}, ensure_ascii=False)
        return Answer(tool_calls=(ToolCall(DONE, thought),))

    def feedback(self, observation: str, info: dict[str, Any]) -> str:
        """Format an output: truncated, empty, or unchanged."""
        return shell_feedback(self.prompt, observation, info)
