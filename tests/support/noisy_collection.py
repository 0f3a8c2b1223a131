"""A real collection of database tasks with solved, failed and broken attempts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from dataset_builders.collection.collector import run
from dataset_builders.collection.engine import RolloutConfig
from dataset_builders.collection.settings import CollectConfig
from dataset_builders.endpoints.endpoint import Endpoint as Model
from dataset_builders.endpoints.requests import Sampling
from dataset_builders.environments import load_environment
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from tests.support.endpoint import Endpoint, Messages, serving

WRONG = 'I guess.\nAction: Answer\nFinal Answer: ["nothing of it"]'
KINDS = ("solved", "second", "unsolved", "cut")
"""What becomes of a question, in turn: solved at once; at the second attempt; never, with the same
wrong answer both times; never, its only turn cut at the token limit."""


CHANGES = ("insert", "update", "delete")


def collect_noisy(out: Path) -> dict[str, Any]:
    """Play database tasks over HTTP, twice at most: 12 questions, and 4 changes, all solved."""
    database = load_environment("database")
    ids = database.task_ids("train")[:60]
    # A question may occur twice.
    played = {t.messages[2].content: t for t in play(database, ids, OraclePolicy())}.values()
    asked = [each for each in played if each.details["kind"] not in CHANGES][:12]
    changed = [each for each in played if each.details["kind"] in CHANGES][:4]
    solved = [*asked, *changed]
    turns = {t.messages[2].content: [m.content for m in t.messages if m.trained] for t in solved}
    kinds = {t.messages[2].content: KINDS[n % len(KINDS)] for n, t in enumerate(asked)}
    kinds |= {t.messages[2].content: "solved" for t in changed}
    assert len(kinds) == 16
    begun: Counter[str] = Counter()

    def reply(messages: Messages) -> Any:
        question = messages[2]["content"]
        turn = sum(each["role"] == "assistant" for each in messages) - 1
        begun[question] += turn == 0
        kind = kinds[question]
        if kind == "cut":
            return {"content": "I", "finish_reason": "length"}
        if kind == "solved" or (kind == "second" and begun[question] == 2) or turn == 0:
            return turns[question][turn]
        return WRONG

    with serving(Endpoint(reply)) as server:
        model = Model("m", server.url, back_off=0.01, tries=3, timeout=30)
        # A seed makes the second attempt another request.
        config = RolloutConfig(database, model, Sampling(seed=1), attempts=2, max_concurrency=4)
        return run(CollectConfig(config, out, tasks=[each.task_id for each in solved]))
