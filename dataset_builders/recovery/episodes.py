"""Read all episodes of a collection, failed attempts included, with the replies of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dataset_builders.collection.attempts import StoredCollection, stored_collections
from dataset_builders.conversation import Message
from dataset_builders.endpoints.reply import Reply
from dataset_builders.rollouts.answered import answered_text
from dataset_builders.rollouts.episode import Trajectory


@dataclass(frozen=True)
class RecordedEpisode:
    """An attempt of a collection.

    Attributes:
        place: The task's place in the collection, from 0.
        attempt: Attempt at the task, from 0.
        trajectory: How it was played.
        replies: The policy's turns as they were acted, one for each round.
    """

    place: int
    attempt: int
    trajectory: Trajectory
    replies: tuple[Reply, ...]

    @cached_property
    def turns(self) -> tuple[int, ...]:
        """Indices of the policy's own turns in the messages, without those of a demonstration."""
        messages = self.trajectory.messages
        spoken = [n for n, message in enumerate(messages) if message.role == "assistant"]
        return tuple(spoken[len(spoken) - self.trajectory.num_rounds :])

    @property
    def rounds(self) -> int:
        """Number of the policy's own turns."""
        return len(self.turns)

    def before(self, turn: int) -> str:
        """Return the text that a turn responds to, see `answered_text`."""
        return answered_text(self.trajectory.messages[: self.turns[turn]])

    def after(self, turn: int) -> str:
        """Return the observation after a turn; "" after the one that ended the episode."""
        return self.before(turn + 1) if turn + 1 < self.rounds else ""

    def action(self, turn: int) -> tuple[Any, ...]:
        """Return what identifies a turn's action: its calls, or its text without calls."""
        message = self.trajectory.messages[self.turns[turn]]
        if message.tool_calls:
            return tuple((call.name, _plain(call.arguments)) for call in message.tool_calls)
        return (" ".join(message.content.split()),)


@dataclass(frozen=True)
class RecordedCollection:
    """The episodes of one environment in a collection.

    Attributes:
        path: The collection's database.
        settings: What the collection was started with, by name.
        episodes: All finished attempts, by task and attempt.
    """

    path: Path
    settings: Mapping[str, Any]
    episodes: tuple[RecordedEpisode, ...]

    @property
    def environment(self) -> str:
        """Name of the environment."""
        return str(self.settings.get("environment", self.path.stem))


def read_collections(folder: Path) -> list[RecordedCollection]:
    """Read the collections of a folder, one for each environment; a running one too.

    Raises:
        SourceNotFoundError: The folder has no collection.
        DataError: A database has another format.
    """
    return [
        RecordedCollection(stored.path, stored.settings, tuple(_episodes(stored)))
        for stored in stored_collections(folder)
    ]


def collection_digest(folder: Path) -> str:
    """Return the SHA-256, in hexadecimal, of a folder's collections and their attempts.

    Raises:
        SourceNotFoundError, DataError: See `read_collections`.
    """
    found = {stored.environment: stored.digest() for stored in stored_collections(folder)}
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _episodes(stored: StoredCollection) -> Iterator[RecordedEpisode]:
    for (place, attempt, trajectory), replies in stored.played():
        episode = RecordedEpisode(place, attempt, trajectory, replies)
        if len(replies) != episode.rounds:  # An oracle's turns are only in the messages.
            messages = (trajectory.messages[turn] for turn in episode.turns)
            episode = RecordedEpisode(place, attempt, trajectory, tuple(map(_reply, messages)))
        yield episode


def _reply(message: Message) -> Reply:
    return Reply(
        message.content,
        cost=0.0,
        reasoning=message.reasoning or "",
        tool_calls=message.tool_calls,
    )


def _plain(arguments: str) -> str:
    """Return a call's arguments independent of blanks and the order of keys."""
    return json.dumps(json.loads(arguments), sort_keys=True)
