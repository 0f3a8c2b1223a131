"""Read the attempts that a collection has stored, failed ones included, without changing it."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from dataset_builders.collection.filters import (
    CUT_TURNS,
    TrajectoryFilter,
    can_be_trained,
    threshold_of,
)
from dataset_builders.collection.folder import STATE
from dataset_builders.collection.output import SOURCE, finished
from dataset_builders.collection.serialization import read_reply, read_trajectory
from dataset_builders.conversation import Conversation
from dataset_builders.endpoints.reply import CONTEXT_FULL, Reply
from dataset_builders.environments import HELD_IN, load_environment
from dataset_builders.errors import DataError, SourceNotFoundError
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.ledger import ACT
from dataset_builders.rollouts.playing import UNFINISHED

_T = TypeVar("_T")

Outcome = Literal["solved", "failed", "broken", "filtered"]
"""What an attempt shows: a solved or a failed task; nothing, as it was cut off or an endpoint or
the environment failed; or a solved task that a filter of the collection drops."""


class StoredAttempt(NamedTuple):
    """An attempt at a task, with its place.

    Attributes:
        place: The task's place in the collection, from 0, which row ids are made of.
        attempt: Attempt at the task, from 0.
        trajectory: What was played.
    """

    place: int
    attempt: int
    trajectory: Trajectory


@dataclass(frozen=True, slots=True)
class StoredCollection:
    """One environment's collection in a folder.

    Attributes:
        path: Its database.
        environment: Name of the environment.
        settings: What it was collected with; see `CollectConfig.fingerprint`.
        min_reward: Reward from which a trajectory counts as solved.
        filters: Further filters, as `parse_filters` takes them.
    """

    path: Path
    environment: str
    settings: dict[str, Any]
    min_reward: float
    filters: tuple[str, ...]

    @property
    def task(self) -> str:
        """AgentInstruct's name of the task, such as "db"; an own environment's name."""
        held_in = self.environment in HELD_IN
        return load_environment(self.environment).task if held_in else self.environment

    @property
    def single_turn(self) -> bool:
        """Whether its rows are single turns, which have no outcome of their own."""
        held_in = self.environment in HELD_IN
        return held_in and load_environment(self.environment).dialogue.single_turn

    @property
    def model(self) -> str:
        """Name of the model that played, or "oracle"."""
        return str(self.settings.get("model", ""))

    def attempts(self) -> Iterator[StoredAttempt]:
        """Yield all finished attempts at all tasks, in order, reading one at a time."""
        query = (
            "SELECT t.place, a.attempt, a.trajectory FROM tasks t JOIN attempts a "
            "ON a.task_id = t.task_id ORDER BY t.place, a.attempt"
        )
        with closing(_opened(self.path)) as database:
            for place, attempt, text in _read(self.path, database, query):
                where = f"task {place}: attempt {attempt}"
                yield StoredAttempt(
                    place, attempt, _decoded(self.path, where, read_trajectory, text)
                )

    def played(self) -> Iterator[tuple[StoredAttempt, tuple[Reply, ...]]]:
        """Yield all finished attempts with the policy's recorded replies; an oracle has none."""
        query = (
            "SELECT reply FROM turns JOIN responses USING (key) "
            "WHERE task_id = ? AND attempt = ? AND purpose = ? ORDER BY round"
        )
        with closing(_opened(self.path)) as database:
            for stored in self.attempts():
                key = (stored.trajectory.task_id, stored.attempt, ACT)
                texts = [text for (text,) in _read(self.path, database, query, key)]
                where = f"task {stored.place}: attempt {stored.attempt}"
                yield stored, tuple(_decoded(self.path, where, read_reply, t) for t in texts)

    def digest(self) -> str:
        """Return a SHA-256 of the settings and of all finished attempts, in hexadecimal."""
        found = hashlib.sha256(json.dumps([self.min_reward, self.filters]).encode())
        with closing(_opened(self.path)) as database:
            for query in (
                "SELECT name, value FROM settings ORDER BY name",
                "SELECT task_id, place FROM tasks ORDER BY place",
                "SELECT task_id, attempt, trajectory FROM attempts ORDER BY task_id, attempt",
            ):
                for row in _read(self.path, database, query):
                    found.update(json.dumps(row).encode())
        return found.hexdigest()

    def conversation(self, stored: StoredAttempt) -> Conversation:
        """Return an attempt as a conversation, named as its row in the collection's data.

        Raises:
            DataError: The trajectory has no assistant turn.
        """
        trajectory = stored.trajectory
        made = Conversation.create(
            finished(trajectory.messages),
            id=f"{self.task}_{stored.place}",
            source=SOURCE,
            task=self.task,
            model=self.model,
            tools=trajectory.tools,
        )
        return replace(made, reward=trajectory.reward)

    def judge(self) -> Judge:
        """Return what decides on the outcome of its attempts."""
        return Judge(self.min_reward, self.filters)


class Judge:
    """Decides what an attempt shows.

    Args:
        min_reward: Reward from which a trajectory counts as solved.
        filters: Further filters of the collection.
    """

    def __init__(self, min_reward: float, filters: tuple[str, ...] = ()) -> None:
        self._sieve = TrajectoryFilter(min_reward, filters, UNFINISHED)

    def __call__(self, trajectory: Trajectory) -> tuple[Outcome, str]:
        """Return the outcome of an attempt, and the reason where it is broken or filtered."""
        reason = self._sieve.reason(trajectory)
        if not reason:
            return "solved", ""
        if trajectory.exit_reason in UNFINISHED | {CONTEXT_FULL}:
            return "broken", trajectory.exit_reason
        if fault := can_be_trained(trajectory) or (CUT_TURNS if trajectory.cut_turns else ""):
            return "broken", fault
        if trajectory.reward >= self._sieve.min_reward:
            return "filtered", reason
        return "failed", reason


def stored_collections(folder: Path) -> list[StoredCollection]:
    """Return the collections of a folder, sorted by environment.

    Raises:
        SourceNotFoundError: The folder has none.
        DataError: A database cannot be read.
    """
    paths = sorted((folder / STATE).glob("*.sqlite"))
    if not paths:
        raise SourceNotFoundError(
            f"{folder}: found no {STATE}/*.sqlite, expected a folder made by `agenttuning collect`"
        )
    return [_collection(path) for path in paths]


def _collection(path: Path) -> StoredCollection:
    with closing(_opened(path)) as database:
        rows = list(_read(path, database, "SELECT name, value FROM settings"))
    settings = {name: json.loads(value) for name, value in rows}
    report = path.with_suffix(".json")
    # Written at the end of every session; a killed first session leaves none.
    used = _reported(report) if report.is_file() else settings
    name = path.stem
    minimum = used.get("min_reward")
    if minimum is None:
        minimum = threshold_of(name) if name in HELD_IN else 1.0
    return StoredCollection(path, name, settings, minimum, tuple(used.get("filters", ())))


def _read(
    path: Path, database: sqlite3.Connection, query: str, values: Sequence[Any] = ()
) -> Iterator[Any]:
    """Yield the rows of a query; a damaged database is a DataError."""
    try:
        yield from database.execute(query, values)
    except sqlite3.DatabaseError as error:
        raise DataError(f"{path}: not a collection's database: {error}") from error


def _decoded(path: Path, where: str, decode: Callable[[str], _T], text: str) -> _T:
    try:
        return decode(text)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: {where}: not an episode: {error!r}") from error


def _reported(report: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(report.read_text("utf-8"))["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{report}: not the report of a collection, expected `settings`: {error!r}"
        ) from error


def _opened(path: Path) -> sqlite3.Connection:
    # Immutable unless a session is running: reading would otherwise leave files beside it.
    running = path.with_name(f"{path.name}-wal").exists()
    place = f"{path.resolve().as_uri()}?{'mode=ro' if running else 'immutable=1'}"
    return sqlite3.connect(place, uri=True)
