"""Collections with failed episodes, played over HTTP against the real worlds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dataset_builders.collection.collector import run
from dataset_builders.collection.engine import RolloutConfig
from dataset_builders.collection.settings import CollectConfig
from dataset_builders.endpoints.endpoint import Endpoint as Model
from dataset_builders.environments import EnvironmentSpec, load_environment
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from tests.support.endpoint import Endpoint, Messages, serving

BROKEN_SQL = "Let me look.\nAction: Operation\n```sql\nSELEC * FROM nothing\n```"
WRONG_ANSWER = 'Action: Answer\nFinal Answer: ["none of them"]'
KINDS = ("solved", "error", "wrong query", "one turn")
"""What the noisy policy does with a database task, in turn."""


def collect(
    out: Path,
    environment: EnvironmentSpec,
    tasks: list[str],
    reply: Callable[[Messages], Any],
    **settings: Any,
) -> dict[str, Any]:
    """Collect tasks with a loopback endpoint; every episode is in the collection's database."""
    with serving(Endpoint(reply)) as server:
        model = Model("m", server.url, back_off=0.01, tries=3, timeout=30)
        given = {"max_concurrency": 4} | settings
        return run(CollectConfig(RolloutConfig(environment, model, **given), out, tasks=tasks))


def noisy_database(out: Path, number: int = 12) -> dict[str, str]:
    """Collect database tasks with a policy of `KINDS`; returns the kind of each task."""
    database = load_environment("database")
    tasks = list(database.task_ids("train")[:number])
    solved = play(database, tasks, OraclePolicy())
    turns = {t.messages[2].content: [m.content for m in t.messages if m.trained] for t in solved}
    kinds = {t.messages[2].content: KINDS[n % len(KINDS)] for n, t in enumerate(solved)}

    def reply(messages: Messages) -> str:
        question = messages[2]["content"]
        turn = sum(each["role"] == "assistant" for each in messages) - 1
        kind = kinds[question]
        if kind == "solved":
            return turns[question][turn]
        if turn == 0 and kind == "error":
            return BROKEN_SQL
        if turn == 0 and kind == "wrong query":
            return "This should do.\nAction: Operation\n```sql\nSELECT 1\n```"
        return WRONG_ANSWER

    collect(out, database, tasks, reply)
    return dict(zip(tasks, kinds.values(), strict=True))


def native(name: str, **arguments: Any) -> dict[str, Any]:
    """Return a reply that calls a tool."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"content": None, "tool_calls": [{"id": "", "type": "function", "function": function}]}


def failing_desk(messages: Messages) -> dict[str, Any] | str:
    """Look up a wrong address, refuse every ticket and say so."""
    turn = sum(each["role"] == "assistant" for each in messages)
    if turn == 0:
        return native("find_orders", email="nobody@example.org")
    return native("close_ticket", outcome="refused") if turn == 1 else "I am sorry."
