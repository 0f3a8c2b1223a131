from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.collection.card import DatasetCard
from dataset_builders.collection.filters import TrajectoryFilter
from dataset_builders.collection.output import OutputWriter
from dataset_builders.collection.tables import agentinstruct_schema
from dataset_builders.conversation import Conversation, Message, from_row
from dataset_builders.environments import load_environment
from dataset_builders.errors import DataError, StorageError
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from dataset_builders.sources.loading import SourceSpec, load_source

CARD = DatasetCard("database", "oracle", "own:1", 1.0)


@pytest.fixture(scope="module")
def trajectories() -> list[Trajectory]:
    environment = load_environment("database")
    return play(environment, environment.task_ids("train")[:7], OraclePolicy())


def trajectory(*messages: Message, environment: str = "database") -> Trajectory:
    return Trajectory(
        f"{environment}-train-0000", environment, "train", messages, 1.0, "answered", 1, 1
    )


def write(folder: Path, trajectories: list[Trajectory], name: str = "database") -> None:
    with OutputWriter(folder, name, model="oracle") as output:
        for number, each in enumerate(trajectories):
            output.add(number * 2, each)
        output.finish(CARD)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_folder_is_read_once_and_as_it_was_played(
    trajectories: list[Trajectory], tmp_path: Path
) -> None:
    write(tmp_path, trajectories)
    loaded = load_source(SourceSpec(str(tmp_path), "agentinstruct"))
    assert not loaded.report.dropped
    conversations = list(loaded.conversations)
    assert [c.id for c in conversations] == [f"db_{2 * number}" for number in range(7)]
    assert {c.task for c in conversations} == {"db"}
    assert [c.messages for c in conversations] == [t.messages for t in trajectories]
    assert files(tmp_path) == [
        "README.md",
        "card/db.json",
        "data/db-00000-of-00001.parquet",
        "jsonl/db.jsonl",
        "messages/db.jsonl",
        "origins/db.jsonl",
    ]


def test_all_forms_hold_the_same(trajectories: list[Trajectory], tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    write(tmp_path, trajectories)
    rows = pq.read_table(tmp_path / "data/db-00000-of-00001.parquet").to_pylist()
    assert lines(tmp_path / "jsonl/db.jsonl") == rows
    told = [(turn["from"], turn["loss"], turn["value"]) for turn in rows[0]["conversations"]]
    kinds = {"user": "human", "assistant": "gpt"}
    assert told == [
        (kinds[m.role], m.trained if m.role == "assistant" else None, m.content)
        for m in trajectories[0].messages
    ]
    assert [loss for _, loss, _ in told] == [None, False, None, True, None, True]
    by_file = load_source(SourceSpec(str(tmp_path / "jsonl/db.jsonl"), "agentinstruct"))
    by_folder = load_source(SourceSpec(str(tmp_path), "agentinstruct"))
    assert list(by_file.conversations) == list(by_folder.conversations)
    messages = [from_row(row) for row in lines(tmp_path / "messages/db.jsonl")]
    assert [m.messages for m in messages] == [t.messages for t in trajectories]
    assert {(m.source, m.task, m.model) for m in messages} == {("collected", "db", "oracle")}
    origins = lines(tmp_path / "origins/db.jsonl")
    assert [o["task_id"] for o in origins] == [t.task_id for t in trajectories]
    assert [o["id"] for o in origins] == [row["id"] for row in rows]


def test_columns_are_those_that_datasets_writes(tmp_path: Path) -> None:
    from datasets import Features, List, Value

    turn = {"from": Value("string"), "loss": Value("bool"), "value": Value("string")}
    features = Features({"conversations": List(turn), "id": Value("string")})
    assert agentinstruct_schema().equals(features.arrow_schema, check_metadata=True)


def test_columns_are_the_hubs(trajectories: list[Trajectory], tmp_path: Path, shared: Path) -> None:
    import pyarrow.parquet as pq

    write(tmp_path, trajectories)
    name = "data/db-00000-of-00001.parquet"
    published = pq.read_schema(shared / "data/agentinstruct_hub" / name)
    assert pq.read_schema(tmp_path / name).equals(published, check_metadata=True)


def test_datasets_reads_a_folder_as_it_reads_the_hubs(
    trajectories: list[Trajectory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    write(tmp_path / "out", trajectories)
    read = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in read.items()} == {"db": 7}


def test_several_environments_share_a_folder(
    trajectories: list[Trajectory], tmp_path: Path
) -> None:
    write(tmp_path, trajectories)
    write(tmp_path, [chosen(), chosen()], "mind2web")
    read = load_source(SourceSpec(str(tmp_path), "agentinstruct"))
    assert Counter(c.task for c in read.conversations) == {"db": 7, "mind2web": 4}
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "path: data/db-*" in text
    assert "path: data/mind2web-*" in text


def chosen() -> Trajectory:
    return trajectory(
        Message("user", "Page 1."),
        Message("assistant", "Answer: B.", trained=True),
        Message("user", "Page 2."),
        Message("assistant", "Answer: A.", trained=True),
        environment="mind2web",
    )


def test_turns_that_are_shown_alone_become_rows_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, [chosen(), chosen()], "mind2web")
    rows = list(load_source(SourceSpec(str(tmp_path), "agentinstruct")).conversations)
    limit = load_environment("mind2web").round_limit
    expected = [f"mind2web_{n * limit + turn}" for n in (0, 2) for turn in (0, 1)]
    assert [row.id for row in rows] == expected
    assert [[m.content for m in row.messages] for row in rows[:2]] == [
        ["Page 1.", "Answer: B."],
        ["Page 2.", "Answer: A."],
    ]


def test_an_observation_that_nobody_answered_is_left_out(tmp_path: Path) -> None:
    said = (Message("user", "Go."), Message("assistant", "Act: x", trained=True))
    write(tmp_path, [trajectory(*said, Message("user", "There."))])
    (row,) = load_source(SourceSpec(str(tmp_path), "agentinstruct")).conversations
    assert row.messages == said


def test_without_finish_the_old_files_stay(trajectories: list[Trajectory], tmp_path: Path) -> None:
    write(tmp_path, trajectories[:2])
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    with OutputWriter(tmp_path, "database") as output:
        output.add(0, trajectories[3])
    with (
        pytest.raises(DataError, match="messages: found none"),
        OutputWriter(tmp_path, "database") as output,
    ):
        output.add(0, trajectory())
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


_KILLED = """
import os, signal, sys
from dataset_builders.collection.card import DatasetCard
from dataset_builders.collection import output
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from dataset_builders.environments import load_environment
from pathlib import Path

environment = load_environment("database")
played = play(environment, environment.task_ids("train")[:3], OraclePolicy())
left = int(sys.argv[2])
real = Path.replace
def replace(self, target):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return real(self, target)
Path.replace = replace
with output.OutputWriter(sys.argv[1], "database") as writer:
    for number, each in enumerate(played):
        writer.add(number, each)
    writer.finish(DatasetCard("database", "oracle", "own:1", 1.0))
"""


@pytest.mark.parametrize("moment", [0, 3, 4])
def test_kill_9_leaves_whole_files(
    trajectories: list[Trajectory], tmp_path: Path, moment: int
) -> None:
    """Killed between one file's putting in place and the next."""
    write(tmp_path, trajectories)
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path), str(moment)], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    conversations = load_source(SourceSpec(str(tmp_path), "agentinstruct")).conversations
    assert len(list(conversations)) == (3 if moment > 3 else 7)
    for kind in ("jsonl", "messages", "origins"):
        assert len(lines(tmp_path / kind / "db.jsonl")) in (3, 7)
    write(tmp_path, trajectories[:2])
    assert len(list(load_source(SourceSpec(str(tmp_path), "agentinstruct")).conversations)) == 2
    assert not [name for name in files(tmp_path) if ".part" in name]


def test_nothing_kept_makes_files_without_rows(tmp_path: Path) -> None:
    write(tmp_path, [])
    assert "data/db-00000-of-00001.parquet" in files(tmp_path)
    assert lines(tmp_path / "jsonl/db.jsonl") == []


def test_the_card_tells_counts_and_cost(trajectories: list[Trajectory], tmp_path: Path) -> None:
    sieve = TrajectoryFilter(1, ["max_rounds=3"])
    failed = trajectory(Message("assistant", "No.", trained=True))
    failed = Trajectory(**{**{s: getattr(failed, s) for s in failed.__slots__}, "reward": 0.0})
    with OutputWriter(tmp_path, "database") as output:
        for number, each in enumerate([*trajectories, failed]):
            if sieve.keeps(each):
                output.add(number, each)
        output.finish(
            DatasetCard(
                environment="database",
                model="gpt|4",
                prompt="own:1f0c9a3e",
                min_reward=1,
                filters=sieve.names,
                counts=sieve.counts,
                prompt_tokens=1200,
                cost=0.14,
                settings={"Temperature": 0.7},
            )
        )
    text = (tmp_path / "README.md").read_text("utf-8")
    for line in (
        "| Model | gpt\\|4 |",
        "| Further filters | no_cut_turns=0, max_rounds=3 |",
        "| Tasks played | 8 |",
        "| Trajectories kept | 7 |",
        "| Dropped: reward_below_threshold | 1 |",
        "| Tokens read | 1200 |",
        "| Cost | $0.1400 |",
        "| Cost per kept trajectory | $0.0200 |",
        "| Temperature | 0.7 |",
    ):
        assert line in text.splitlines()
    assert "Tokens written" not in text


def test_memory_does_not_grow_with_the_number(
    trajectories: list[Trajectory], tmp_path: Path
) -> None:
    with OutputWriter(tmp_path, "database") as output:
        for number in range(600):
            output.add(number, trajectories[number % 7])
        tracemalloc.start()
        try:
            for number in range(600, 1800):
                output.add(number, trajectories[number % 7])
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        output.finish(CARD)
    # 1,200 rows are 3 MB of Python objects; a batch of 256 is what may be held.
    assert peak < 2_000_000
    assert output.rows == 1800


@pytest.mark.skipif(os.geteuid() != 0, reason="writes to /proc/self, which root may open")
def test_a_folder_that_cannot_be_written_is_one_line() -> None:
    with pytest.raises(StorageError, match="/proc/self: cannot be written"):
        OutputWriter("/proc/self", "database").__enter__()


def test_a_conversation_is_made_of_the_trajectory(trajectories: list[Trajectory]) -> None:
    from dataset_builders.collection.output import conversations_of

    ((conversation, task_id),) = conversations_of(17, trajectories[0], "gpt-4")
    assert task_id == trajectories[0].task_id
    assert conversation == Conversation(
        "db_17", "collected", "db", trajectories[0].messages, model="gpt-4"
    )
