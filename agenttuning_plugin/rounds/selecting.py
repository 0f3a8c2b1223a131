"""Select a round's agent data out of what the rounds kept: rule, cap per task, no duplicates."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from agenttuning_plugin.console import writing
from agenttuning_plugin.rounds.collecting import Collection
from agenttuning_plugin.rounds.settings import RoundsConfig
from agenttuning_plugin.rounds.state import Facts
from dataset_builders.collection.conversations import write_jsonl
from dataset_builders.collection.output import conversations_of
from dataset_builders.conversation import Conversation, Message
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import SourceSpec, load_source
from dataset_builders.sources.made import kind_of

AGENT_FILE = "agent.jsonl"
"""File of a round's own agent data, in the `messages` format."""


def select_round(
    config: RoundsConfig, collections: Sequence[Collection], recipe_data: Sequence[Any]
) -> Facts:
    """Write the agent data that rounds kept, for the last of them to train on.

    Args:
        config: Settings of the rounds.
        collections: Those of all rounds up to this one, in order.
        recipe_data: Agent sources of the recipe, as in its section; an episode that is among them
            already is a duplicate, unless the rule is `replace`.

    Returns:
        `rows` (conversations written), `episodes` (of them), `new` (episodes of this round among
        them) and `dropped` (kept episodes that were left out, by reason).
    """
    known: set[str] = set()
    if config.data != "replace":
        known = {_digest(each.messages) for each in _recipe_conversations(recipe_data)}
    used = collections[-1:] if config.data == "latest" else collections
    conversations: list[Conversation] = []
    dropped: Counter[str] = Counter()
    by_task: Counter[str] = Counter()
    episodes: Counter[int] = Counter()
    # Newest first: it is the newest ones that the cap keeps.
    for collection in reversed(used):
        for place, trajectory, _, reason in collection.played():
            if reason:
                continue
            digest = _digest(trajectory.messages)
            if digest in known:
                dropped["duplicate"] += 1
            elif by_task[trajectory.task_id] >= config.per_task:
                dropped["over_the_cap_per_task"] += 1
            else:
                known.add(digest)
                by_task[trajectory.task_id] += 1
                episodes[collection.number] += 1
                conversations += _conversations(collection, place, trajectory)
    path = collections[-1].folder / AGENT_FILE
    with writing(path):
        write_jsonl(path, conversations)
    return {
        "file": str(path),
        "rows": len(conversations),
        "episodes": episodes.total(),
        "new": episodes[collections[-1].number],
        "tasks": len(by_task),
        "dropped": dict(dropped),
    }


def agent_sources(
    config: RoundsConfig, selected: Mapping[str, Any], recipe_data: Sequence[Any]
) -> list[Any]:
    """Return the agent sources of a round's training, as in a recipe's section."""
    own = {"path": str(selected["file"]), "format": "messages"}
    return [own] if config.data == "replace" else [*recipe_data, own]


def _conversations(
    collection: Collection, place: int, trajectory: Trajectory
) -> list[Conversation]:
    name, environment = f"round-{collection.number}", collection.player.spec()
    made = conversations_of(place, trajectory, name, environment)
    return [
        Conversation.create(
            each.messages,
            id=f"{name}:{each.id}",
            source=each.source,
            task=each.task,
            model=each.model,
            tools=each.tools,
        )
        for each, _ in made
    ]


def _recipe_conversations(sources: Sequence[Any]) -> list[Conversation]:
    found: list[Conversation] = []
    for source in sources:
        spec = SourceSpec(**({"path": source} if isinstance(source, str) else source))
        if not kind_of(spec):  # made before training, so not there yet
            found += load_source(resolve_source(spec)).conversations
    return found


def _digest(messages: Sequence[Message]) -> str:
    """Return a digest of the messages that ignores which turns are trained."""
    last = len(messages)
    while last and messages[last - 1].role != "assistant":  # as a row of it ends
        last -= 1
    said = [
        (each.role, each.content, [(call.name, call.arguments) for call in each.tool_calls])
        for each in messages[:last]
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
