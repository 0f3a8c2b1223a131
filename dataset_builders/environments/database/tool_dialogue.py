"""The database task with tool calls, in the format of AgentBench's function-calling version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from dataset_builders.conversation import Message
from dataset_builders.environments.base import TextEnvironment
from dataset_builders.environments.database.environment import (
    ANSWER,
    OPERATION,
    DatabaseEnvironment,
)
from dataset_builders.environments.tool_dialogue import Step, ToolDialogue
from dataset_builders.environments.tool_schemas import function_schema
from dataset_builders.tools import ToolCall

EXECUTE = "execute_sql"
COMMIT = "commit_final_answer"


class DatabaseToolDialogue(ToolDialogue):
    """Dialogue for the DB task with the tools `execute_sql` and `commit_final_answer`.

    Names, arguments and the limit on rounds are those of AgentBench's function-calling version, as
    is the score of an episode without an answer: 0, whatever the tables hold. The prompt is ours.
    """

    world: ClassVar[type[TextEnvironment]] = DatabaseEnvironment
    agentinstruct_task: ClassVar[str] = "db"
    round_limit: ClassVar[int] = 20
    prompt_template: ClassVar[Mapping[str, Any] | None] = {
        "opening": [
            {
                "role": "system",
                "content": "Work on {engine} with the tools. Run one SQL statement at a time. To "
                "finish, commit the values of the answer or, after a change, the text done.",
            }
        ],
        "sqlite": "an SQLite table",
        "mariadb": "a MariaDB table",
    }

    env: DatabaseEnvironment

    def opening(self) -> tuple[Message, ...]:
        """Return the instruction, which names the engine."""
        engine = self.prompt.pieces[self.env.backend]
        return tuple(
            replace(message, content=message.content.replace("{engine}", engine))
            for message in self.prompt.opening
        )

    def schemas(self) -> list[dict[str, Any]]:
        """See `ToolDialogue.schemas`."""
        values = {
            "type": "array",
            "items": {"type": "string"},
            "description": "All values of the answer, row by row.",
        }
        query = {"type": "string", "description": "One SQL statement."}
        return [
            function_schema(EXECUTE, "Run an SQL statement and return its result.", query=query),
            function_schema(COMMIT, "Commit the final answer; this ends the task.", answers=values),
        ]

    def action_of(self, call: ToolCall | str) -> str | None:
        """See `ToolDialogue.action_of`; text is no action."""
        if isinstance(call, str):
            return None
        arguments = json.loads(call.arguments)
        if call.name == EXECUTE:
            return f"{OPERATION}\n{arguments['query'].strip()}"
        return f"{ANSWER}\n{json.dumps(arguments['answers'], ensure_ascii=False)}"

    def call_of(self, action: str) -> ToolCall | str:
        """See `ToolDialogue.call_of`."""
        kind, _, content = action.partition("\n")
        if kind == OPERATION:
            return ToolCall(EXECUTE, json.dumps({"query": content}, ensure_ascii=False))
        return ToolCall(COMMIT, json.dumps({"answers": json.loads(content)}, ensure_ascii=False))

    def stop(self, exit_reason: str, *, valid_format: bool, truncated: bool = False) -> Step:
        """End the episode without an answer, which scores 0."""
        *_, info = super().stop(exit_reason, valid_format=valid_format, truncated=truncated)
        return "", 0.0, not truncated, truncated, info | {"score": 0.0, "success": False}
