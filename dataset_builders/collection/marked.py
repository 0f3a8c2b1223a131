"""Train on failed episodes too, with their outcome stated in the prompt (NAT, arXiv 2402.11651).

The paper appends a text to the prompt that says whether a correct or an incorrect trajectory
follows, and uses the text of correct ones at inference. The texts here are our own.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from dataset_builders.collection.attempts import (
    StoredAttempt,
    StoredCollection,
    stored_collections,
)
from dataset_builders.conversation import Conversation
from dataset_builders.environments.prompts import with_suffix
from dataset_builders.errors import ConfigError, DataError

REPEATED = "repeated"
"""Failed attempts with the same messages as an earlier one."""

OVER_LIMIT = "over_limit"
"""Failed attempts that were left out, as there are more than `failed_limit` allows."""


@dataclass(frozen=True, slots=True)
class Markers:
    """Texts that are appended to the prompt, and the bound on failed episodes.

    Attributes:
        success: Appended to the prompt of a solved task; the prompt suffix of inference.
        failed: Appended to the prompt of a failed one.
        limit: Maximum share of failed conversations, in [0, 1).
    """

    success: str
    failed: str
    limit: float


class MarkedReport(NamedTuple):
    """Counts of a collection's attempts: the sum of all is the number of attempts.

    Attributes:
        solved: Solved tasks, each a conversation with the success marker.
        failed: Failed attempts, each a conversation with the marker of failed ones.
        left_out: Attempts that became none, by reason; "broken: ..." are no failures of the
            model, and "filtered: ..." are solved tasks that a filter of the collection drops.
    """

    solved: int
    failed: int
    left_out: Counter[str]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        counts = dict(sorted(self.left_out.items()))
        return {"solved": self.solved, "failed": self.failed, "left_out": counts}


def read_marked(
    folder: Path, markers: Markers, tasks: Collection[str] = ()
) -> tuple[list[Conversation], dict[str, MarkedReport]]:
    """Read the attempts of a collection's folder as conversations with their outcome marked.

    Ids are those of the collection's data; those of failed attempts end in "_failed_N".

    Args:
        folder: Folder of the collection.
        markers: The texts and the bound.
        tasks: Tasks to take, such as "db"; all if empty.

    Returns:
        The conversations, and the counts by task.

    Raises:
        SourceNotFoundError: The folder has no collection.
        ConfigError: A task is not in it, or its rows are single turns.
        DataError: No task was solved.
    """
    found = {each.task: each for each in stored_collections(folder)}
    if unknown := sorted(set(tasks) - found.keys()):
        known = ", ".join(found)
        raise ConfigError(f"{folder}: splits: found {unknown[0]!r}, expected any of {known}")
    reports: dict[str, MarkedReport] = {}
    conversations: list[Conversation] = []
    for task, collection in found.items():
        if tasks and task not in tasks:
            continue
        if collection.single_turn:
            raise ConfigError(
                f"{folder}: failed: marked: found {task}, whose rows are single turns without an "
                "outcome of their own; name the other tasks in `splits`"
            )
        chosen, reports[task] = _chosen(collection, markers)
        conversations += marked_conversations(collection, markers, chosen)
    return conversations, reports


def marked_conversations(
    collection: StoredCollection, markers: Markers, failed: Collection[tuple[int, int]]
) -> Iterator[Conversation]:
    """Yield the solved tasks of a collection and the chosen failed attempts, in their order.

    Args:
        collection: The collection.
        markers: The texts.
        failed: Place and attempt of the failed attempts to take.
    """
    judge = collection.judge()
    for stored in collection.attempts():
        outcome, _ = judge(stored.trajectory)
        if outcome == "solved":
            yield _marked(collection.conversation(stored), markers.success)
        elif (stored.place, stored.attempt) in failed:
            conversation = _marked(collection.conversation(stored), markers.failed)
            yield replace(conversation, id=f"{conversation.id}_failed_{stored.attempt}")


def _marked(conversation: Conversation, marker: str) -> Conversation:
    return replace(conversation, messages=tuple(with_suffix(conversation.messages, marker)))


def _chosen(
    collection: StoredCollection, markers: Markers
) -> tuple[set[tuple[int, int]], MarkedReport]:
    """Choose failed attempts, spread evenly over the tasks, and count all attempts."""
    judge, left_out = collection.judge(), Counter[str]()
    solved, failed, seen = 0, list[tuple[int, int]](), set[bytes]()
    for stored in collection.attempts():
        outcome, reason = judge(stored.trajectory)
        if outcome == "solved":
            solved += 1
        elif outcome != "failed":
            left_out[f"{outcome}: {reason}"] += 1
        elif (digest := _digest(stored)) in seen:
            left_out[REPEATED] += 1
        else:
            seen.add(digest)
            failed.append((stored.place, stored.attempt))
    if not solved:
        raise DataError(
            f"{collection.path}: failed: marked: found no solved task among {len(failed)} failed "
            "ones, expected some: a model cannot learn from failures alone"
        )
    allowed = min(len(failed), int(solved * markers.limit / (1 - markers.limit) + 1e-9))
    left_out[OVER_LIMIT] += len(failed) - allowed
    chosen = {failed[number * len(failed) // allowed] for number in range(allowed)}
    return chosen, MarkedReport(solved, allowed, +left_out)


def _digest(stored: StoredAttempt) -> bytes:
    return hashlib.sha256(repr(stored.trajectory.messages).encode("utf-8", "replace")).digest()
