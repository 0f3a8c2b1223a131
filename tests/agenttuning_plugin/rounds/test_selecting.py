"""What a round trains on: rule, cap per task, duplicates."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agenttuning_plugin.config.evaluation import AgentTaskConfig
from agenttuning_plugin.rounds.collecting import Collection
from agenttuning_plugin.rounds.selecting import agent_sources, select_round
from agenttuning_plugin.rounds.settings import RoundsConfig
from dataset_builders.collection.collector import run
from dataset_builders.collection.conversations import to_conversation, write_jsonl
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from dataset_builders.sources.loading import SourceSpec, load_source

PLAYER = AgentTaskConfig(type="agent_task", environment="database")
CONFIG = RoundsConfig(env="database", num_tasks=5, attempts=1)


@pytest.fixture
def collections(tmp_path: Path) -> list[Collection]:
    """Two rounds that the oracle played: the second one's tasks are those of the first."""
    found = []
    for number in (1, 2):
        # The seed is their sum.
        config = replace(CONFIG, seed=2 - number)
        folder = tmp_path / f"round-{number}"
        collection = Collection(config, PLAYER, number, Path("model"), folder)
        run(collection.settings())
        found.append(collection)
    return found


def ids(collection: Collection) -> list[str]:
    lines = (collection.folder / "agent.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["id"] for line in lines]


def test_what_a_round_repeats_is_kept_once(collections: list[Collection]) -> None:
    first = select_round(CONFIG, collections[:1], [])
    assert (first["episodes"], first["new"], first["tasks"], first["dropped"]) == (5, 5, 5, {})
    second = select_round(CONFIG, collections, [])
    assert second["dropped"] == {"duplicate": 5}
    assert (second["episodes"], second["new"]) == (5, 5)
    assert all(each.startswith("round-2:db_") for each in ids(collections[1]))


def test_the_rules_differ_in_the_rounds_they_use(collections: list[Collection]) -> None:
    latest = select_round(replace(CONFIG, data="latest"), collections, [])
    assert (latest["episodes"], latest["dropped"]) == (5, {})
    sources: dict[str, list[Any]] = {
        rule: agent_sources(replace(CONFIG, data=rule), latest, ["recipe.jsonl"])
        for rule in ("add", "latest", "replace")
    }
    own = {"path": latest["file"], "format": "messages"}
    assert sources == {
        "add": ["recipe.jsonl", own], "latest": ["recipe.jsonl", own], "replace": [own],
    }  # fmt: skip


def test_the_cap_keeps_the_newest(collections: list[Collection]) -> None:
    # Another text for the same tasks: what the first round said is changed.
    changed = collections[0].folder / "collection/collection/database.sqlite"
    with sqlite3.connect(changed) as database:
        database.execute("UPDATE attempts SET trajectory = replace(trajectory, 'Action', 'ACTION')")
    database.close()
    both = select_round(CONFIG, collections, [])
    assert (both["episodes"], both["tasks"], both["new"]) == (10, 5, 5)
    one = select_round(replace(CONFIG, per_task=1), collections, [])
    assert one["dropped"] == {"over_the_cap_per_task": 5}
    assert all(each.startswith("round-2:") for each in ids(collections[1]))


def test_what_the_recipe_has_already_is_a_duplicate(
    collections: list[Collection], tmp_path: Path
) -> None:
    tasks = collections[0].settings().chosen()[:2]
    played = play(PLAYER.spec(), tasks, OraclePolicy())
    recipe = tmp_path / "recipe.jsonl"
    write_jsonl(recipe, [to_conversation(each) for each in played])
    found = select_round(CONFIG, collections[:1], [str(recipe)])
    assert (found["episodes"], found["dropped"]) == (3, {"duplicate": 2})
    alone = select_round(replace(CONFIG, data="replace"), collections[:1], [str(recipe)])
    assert (alone["episodes"], alone["dropped"]) == (5, {})


def test_the_file_is_a_source_with_the_same_trained_turns(collections: list[Collection]) -> None:
    facts = select_round(CONFIG, collections[:1], [])
    (source,) = agent_sources(replace(CONFIG, data="replace"), facts, [])
    read = load_source(SourceSpec(**source)).conversations
    played = {t.task_id: t for _, t, _, _ in collections[0].played()}
    trained = [[m.content for m in each.messages if m.trained] for each in read]
    expected = [[m.content for m in each.messages if m.trained] for each in played.values()]
    assert trained == expected
    assert len(read) == 5
