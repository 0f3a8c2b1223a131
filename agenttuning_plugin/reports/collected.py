"""Read a collection's episodes as records, including dropped ones from its databases."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from dataset_builders.collection.filters import TrajectoryFilter, threshold_of
from dataset_builders.collection.folder import STATE
from dataset_builders.collection.serialization import read_trajectory
from dataset_builders.environments import HELD_IN
from dataset_builders.errors import ConfigError, DataError
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.playing import UNFINISHED
from evaluators.evaluator import Record
from evaluators.tasks.agent_task import record_of
from evaluators.tasks.failure_modes import failure_modes

_ENDED = (
    "SELECT a.trajectory FROM tasks t JOIN attempts a "
    "ON a.task_id = t.task_id AND a.attempt = t.final_attempt ORDER BY t.place"
)


def collected_records(folder: Path) -> dict[str, list[Record]]:
    """Return finished episodes by environment; {} if nothing was collected.

    A running collection can be read, too.

    Args:
        folder: Output folder of `agenttuning collect`.

    Returns:
        Records as an evaluation's, with `kept`: "yes", or why the trajectory was dropped.

    Raises:
        DataError: A database or report has another format.
    """
    found = {}
    for path in sorted((folder / STATE).glob("*.sqlite")):
        sieve = _sieve(path)
        found[path.stem] = [_record(played, sieve) for played in _ended(path)]
    return found


def _ended(path: Path) -> Iterator[Trajectory]:
    try:
        with closing(sqlite3.connect(f"file:{path.resolve()}?mode=ro", uri=True)) as database:
            for (text,) in database.execute(_ENDED):
                yield read_trajectory(text)
    except (sqlite3.DatabaseError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: not a collection's database: {error}") from error


def _sieve(path: Path) -> TrajectoryFilter:
    """Return the trajectory filter, from the last session's report."""
    report = path.with_suffix(".json")
    if not report.is_file():  # The first session is running, or was killed.
        known = path.stem in HELD_IN
        return TrajectoryFilter(threshold_of(path.stem) if known else 1.0, (), UNFINISHED)
    try:
        settings = json.loads(report.read_text("utf-8"))["settings"]
        return TrajectoryFilter(settings["min_reward"], settings["filters"], UNFINISHED)
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise DataError(f"{report}: not a collection's report: {error}") from error


def _record(played: Trajectory, sieve: TrajectoryFilter) -> dict[str, Any]:
    record = record_of(played)
    if not record["error"]:
        record["failures"] = failure_modes(record, played.environment)
    return record | {"kept": sieve.reason(played) or "yes"}
