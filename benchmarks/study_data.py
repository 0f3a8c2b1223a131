"""Write the data of the study of eta (docs/studies/eta.md) to ~/.cache/agenttuning/study.

    agenttuning demo --prepare
    python benchmarks/study_data.py --agentinstruct zai-org/AgentInstruct

Chat: ShareGPT conversations of at most 1,000 characters, so that two CPU cores suffice. Agent:
the oracle's database trajectories of the demo, and AgentInstruct's `db` and `alfworld` but for
the rows held out. Held out: conversations and trajectories that no run trains on, the same for
every arm. Each selection is in `item_order.fixed_order`, so it depends on the rows' ids alone.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from dataset_builders.collection.conversations import write_jsonl
from dataset_builders.conversation import Conversation
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import SourceSpec, load_source
from evaluators.tasks.item_order import fixed_order

CACHE = Path("~/.cache/agenttuning").expanduser()
OUT = CACHE / "study"
CHARACTERS = 1000
CHAT = 400
CHAT_HELD_OUT = 32
HELD_OUT = 6
TRAINED = ("db", "alfworld")
TASKS = ("os", "db", "alfworld", "webshop", "kg", "mind2web")


def in_fixed_order(conversations: Sequence[Conversation]) -> list[Conversation]:
    """Return conversations in an order that depends on their ids; number the repeated ones."""
    named: dict[str, Conversation] = {}
    for conversation in conversations:
        name, number = conversation.id, 2
        while name in named:
            name, number = f"{conversation.id}#{number}", number + 1
        named[name] = conversation
    return [named[name] for name in fixed_order(named)]


def chats() -> list[Conversation]:
    """Return short ShareGPT conversations with an answer, in fixed order."""
    source = CACHE / "ShareGPT_V3_unfiltered_cleaned_split.json"
    built = load_source(SourceSpec(str(source), "sharegpt"))
    return in_fixed_order(
        [
            each
            for each in built.conversations
            if each.num_trained and sum(len(m.content) for m in each.messages) <= CHARACTERS
        ]
    )


def write(name: str, conversations: Sequence[Conversation], counts: dict[str, int]) -> None:
    """Write one file and count its conversations."""
    write_jsonl(OUT / name, conversations)
    counts[name] = len(conversations)


def main() -> None:
    """Write all files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--agentinstruct", required=True, help="folder or hub id")
    source = resolve_source(parser.parse_args().agentinstruct)
    OUT.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    chat = chats()
    write("chat-held-out.jsonl", chat[:CHAT_HELD_OUT], counts)
    write("chat.jsonl", chat[CHAT_HELD_OUT : CHAT_HELD_OUT + CHAT], counts)
    shutil.copy(CACHE / "demo-agent.jsonl", OUT / "agent-database.jsonl")
    agent = load_source(source).conversations
    held_out: list[Conversation] = []
    for task in TASKS:
        rows = in_fixed_order([each for each in agent if each.task == task])
        held_out += rows[:HELD_OUT]
        if task in TRAINED:
            write(f"agent-{task}.jsonl", rows[HELD_OUT:], counts)
        counts[f"held-out of {task}"] = len(rows[:HELD_OUT])
    write("actions-held-out.jsonl", held_out, counts)
    (OUT / "counts.json").write_text(json.dumps(counts, indent=1) + "\n", "utf-8")
    print(json.dumps(counts, indent=1))


if __name__ == "__main__":
    main()
