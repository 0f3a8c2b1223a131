"""`failed: marked`: failed attempts of a real collection as rows, their outcome in the prompt."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from dataset_builders.collection.attempts import stored_collections
from dataset_builders.collection.marked import Markers, read_marked
from dataset_builders.conversation import Conversation
from dataset_builders.errors import ConfigError, DataError, SourceNotFoundError
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import load_source

SAVED = Path(__file__).parents[2] / "assets/saved"
MARKERS = Markers("Get it right.", "Get it wrong.", 0.5)


def loaded(path: Path) -> list[Conversation]:
    return list(load_source(resolve_source(str(path))).conversations)


def test_outcomes_of_all_attempts(noisy: Path) -> None:
    (collection,) = stored_collections(noisy)
    assert (collection.task, collection.model, collection.min_reward) == ("db", "m", 1.0)
    outcomes = Counter(collection.judge()(each.trajectory) for each in collection.attempts())
    assert outcomes == {
        ("solved", ""): 10,
        ("failed", "reward_below_threshold"): 9,
        ("broken", "cut_turns"): 6,
    }
    assert sorted(path.name for path in (noisy / "collection").iterdir()) == [
        ".database.sqlite.lock",
        "database.json",
        "database.sqlite",
    ]


def test_failed_attempts_are_rows_with_their_outcome_in_the_prompt(noisy: Path) -> None:
    rows, reports = read_marked(noisy, MARKERS)
    # The second attempt at three tasks was the same as the first.
    assert reports["db"].to_dict() == {
        "solved": 10,
        "failed": 6,
        "left_out": {"broken: cut_turns": 6, "repeated": 3},
    }
    kept = loaded(noisy)
    solved = [row for row in rows if not row.id.count("failed")]
    assert [row.id for row in solved] == [row.id for row in kept]
    for row, original in zip(solved, kept, strict=True):
        assert row.messages[1:] == original.messages[1:]
        assert row.messages[0].content == f"{original.messages[0].content}\n\nGet it right."
        assert row.reward == 1.0
    failed = [row for row in rows if row.id.count("failed")]
    assert [row.id for row in failed[:3]] == ["db_1_failed_0", "db_2_failed_0", "db_5_failed_0"]
    assert all(row.messages[0].content.endswith("\n\nGet it wrong.") for row in failed)
    assert all(row.reward == 0.0 and row.num_trained == 2 for row in failed)
    assert all(row.messages[-1].content.endswith('["nothing of it"]') for row in failed)


def test_the_share_of_failed_rows_is_bounded_and_spread_over_the_tasks(noisy: Path) -> None:
    markers = Markers("Get it right.", "Get it wrong.", 0.2)
    rows, reports = read_marked(noisy, markers, ["db"])
    assert (reports["db"].solved, reports["db"].failed) == (10, 2)
    assert reports["db"].left_out["over_limit"] == 4
    failed = [row.id for row in rows if "failed" in row.id]
    assert failed == ["db_1_failed_0", "db_6_failed_0"]


def test_a_collection_of_an_earlier_version() -> None:
    rows, reports = read_marked(SAVED / "collected", MARKERS)
    assert reports["db"] == (3, 0, Counter())
    assert [row.id for row in rows] == ["db_0", "db_1", "db_2"]
    # It was interrupted: three tasks have failed, none is solved, three are open.
    with pytest.raises(DataError, match="found no solved task among 3 failed ones"):
        read_marked(SAVED / "interrupted", MARKERS)


def test_a_running_collection_can_be_read(noisy: Path, tmp_path: Path) -> None:
    import sqlite3

    copy = Path(shutil.copytree(noisy, tmp_path / "copy"))
    writer = sqlite3.connect(copy / "collection/database.sqlite")
    writer.execute("CREATE TABLE other (x)")
    writer.commit()
    assert (copy / "collection/database.sqlite-wal").exists()
    (collection,) = stored_collections(copy)
    assert len(list(collection.attempts())) == 25
    writer.close()


def test_what_cannot_be_marked(noisy: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"found no collection/\*.sqlite"):
        read_marked(tmp_path, MARKERS)
    with pytest.raises(ConfigError, match="splits: found 'os', expected any of db"):
        read_marked(noisy, MARKERS, ["os"])
    (tmp_path / "collection").mkdir()
    (tmp_path / "collection/database.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(DataError, match="not a collection's database"):
        read_marked(tmp_path, MARKERS)
    shutil.copy(noisy / "collection/database.sqlite", tmp_path / "collection/mind2web.sqlite")
    (tmp_path / "collection/database.sqlite").unlink()
    with pytest.raises(ConfigError, match="found mind2web, whose rows are single turns"):
        read_marked(tmp_path, MARKERS)
