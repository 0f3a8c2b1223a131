"""A database that cannot grow, as on a full disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataset_builders.collection.store import SqliteRolloutLog
from dataset_builders.errors import StorageError


def test_a_database_that_cannot_grow_is_one_line(tmp_path: Path) -> None:
    store = SqliteRolloutLog(tmp_path / "s.sqlite")
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match="cannot be written: database or disk is full"):
        store.add_tasks([f"task-{index:090d}" for index in range(1000)])
    store.close()
