"""Which turns of a collection changed the state of the world: the selector `state_changing`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataset_builders.collection.attempts import (
    StoredAttempt,
    StoredCollection,
    stored_collections,
)
from dataset_builders.collection.folder import STATE
from dataset_builders.conversation import Conversation, Message
from dataset_builders.endpoints.answer import Answer
from dataset_builders.endpoints.errors import EpisodeEndedError
from dataset_builders.endpoints.reply import Reply, reply_of
from dataset_builders.environments import HELD_IN, EnvironmentSpec, load_environment
from dataset_builders.errors import ConfigError, DataError
from dataset_builders.reasoning import with_tags
from dataset_builders.rollouts.answered import answered_text
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.playing import REPLAY_DIVERGED, agree
from dataset_builders.rollouts.policy import Policy, TurnRequest

RECORDED = "recorded"
"""Conversations whose changes the collection recorded while it played."""

REPLAYED = "replayed"
"""Conversations of an earlier version's collection, played again for their changes."""


def collection_of(path: Path, setting: str = "train_on: state_changing") -> Path:
    """Return the folder of the collection that a source is in.

    Args:
        path: Path of the source.
        setting: What needs the collection, for the error.

    Raises:
        ConfigError: The source is no collection.
    """
    for folder in (path, *path.resolve().parents[:2]):
        if any((folder / STATE).glob("*.sqlite")):
            return folder
    raise ConfigError(
        f"{path}: {setting}: found no {STATE}/*.sqlite, expected a folder made by `agenttuning "
        "collect`, which has every episode"
    )


def changed_turns(
    folder: Path, conversations: Iterable[Conversation], counts: Counter[str]
) -> Iterator[tuple[Conversation, list[int]]]:
    """Yield each conversation with the indices of its turns that changed the world.

    A collection records them while it plays; those of an earlier version are played again. The turn
    that ends a task, such as with an answer, counts as a change. All turns are yielded of a
    conversation whose second play differs from the first.

    Args:
        folder: Folder of the collection.
        conversations: Its rows; ids are those that `agenttuning collect` gave.
        counts: Receives the number of conversations, by how their changes are known.

    Raises:
        DataError: A conversation is not in the collection, or its environment does not say what
            the state of its world is.
    """
    found: dict[str, tuple[str, tuple[bool, ...]]] = {}
    for collection in stored_collections(folder):
        if not collection.single_turn:
            found |= _changes(collection)
    for conversation in conversations:
        # Failed attempts of `failed: marked` are named after their task, too.
        how, changes = found.get(conversation.id, ("", ()))
        if not how:
            raise DataError(
                f"{conversation.where or conversation.id}: train_on: state_changing: found no "
                f"attempt {conversation.id!r} in {folder / STATE}"
            )
        counts[how] += 1
        yield conversation, _indices(conversation, how, changes)


def _indices(conversation: Conversation, how: str, changes: Sequence[bool]) -> list[int]:
    turns = [n for n, message in enumerate(conversation.messages) if message.role == "assistant"]
    if how == REPLAY_DIVERGED:
        return turns
    # Before the model's turns there may be those of a demonstration.
    own = turns[len(turns) - len(changes) :]
    return [n for n, changed in zip(own, changes, strict=True) if changed]


def _changes(collection: StoredCollection) -> Mapping[str, tuple[str, tuple[bool, ...]]]:
    judge, found = collection.judge(), dict[str, tuple[str, tuple[bool, ...]]]()
    unknown: list[StoredAttempt] = []
    for stored in collection.attempts():
        outcome, _ = judge(stored.trajectory)
        if outcome not in ("solved", "failed"):
            continue
        if stored.trajectory.state_changes:
            name = row_id(collection, stored, failed=outcome == "failed")
            found[name] = RECORDED, stored.trajectory.state_changes
        else:
            unknown.append(stored)
    for stored, replayed in zip(unknown, _replayed(collection, unknown), strict=True):
        failed = judge(stored.trajectory)[0] == "failed"
        how = REPLAYED if replayed else REPLAY_DIVERGED
        found[row_id(collection, stored, failed=failed)] = how, replayed or ()
    return found


def row_id(collection: StoredCollection, stored: StoredAttempt, *, failed: bool) -> str:
    """Return the id of an attempt's row; see `marked.marked_conversations`."""
    name = f"{collection.task}_{stored.place}"
    return f"{name}_failed_{stored.attempt}" if failed else name


def _replayed(
    collection: StoredCollection, attempts: Sequence[StoredAttempt]
) -> list[tuple[bool, ...] | None]:
    """Return the changes of attempts that are played again; None where they went differently."""
    if not attempts:
        return []
    environment = _environment(collection)
    results: list[tuple[bool, ...] | None] = []
    for round_ in _rounds(attempts):
        policy = ReplayPolicy({each.trajectory.task_id: each.trajectory for each in round_})
        ids = [each.trajectory.task_id for each in round_]
        for stored, again in zip(
            round_, play(environment, ids, policy, marks_state=True), strict=True
        ):
            if again.exit_reason == stored.trajectory.exit_reason and not again.state_changes:
                raise DataError(
                    f"{collection.environment}: train_on: state_changing: this environment does "
                    "not say what the state of its world is (state_digest); name other tasks in "
                    "`splits`"
                )
            same = again.exit_reason == stored.trajectory.exit_reason
            results.append(again.state_changes if same else None)
    return results


def _rounds(attempts: Sequence[StoredAttempt]) -> Iterator[list[StoredAttempt]]:
    """Yield attempts in groups, in order, in which no task occurs twice."""
    group: list[StoredAttempt] = []
    seen: set[str] = set()
    for stored in attempts:
        if stored.trajectory.task_id in seen:
            yield group
            group, seen = [], set()
        group.append(stored)
        seen.add(stored.trajectory.task_id)
    yield group


def _environment(collection: StoredCollection) -> EnvironmentSpec:
    settings = collection.settings
    options = settings.get("environment options") or {}
    if collection.environment in HELD_IN:
        return load_environment(collection.environment, **options)
    reference = str(settings.get("reference") or "")
    try:
        return load_environment(reference, **options)
    except ConfigError as error:
        raise ConfigError(
            f"{collection.path}: train_on: state_changing: playing again needs the environment "
            f"{reference}, in the working folder: {error}"
        ) from error


@dataclass
class ReplayPolicy(Policy):
    """Repeats the turns of stored trajectories; ends an episode where the world answers otherwise.

    Attributes:
        trajectories: What is played again, by task.
    """

    trajectories: Mapping[str, Trajectory]
    _opening: dict[str, int] = field(default_factory=dict)

    async def next_turn(self, request: TurnRequest) -> Reply:
        """See `Policy.next_turn`.

        Raises:
            EpisodeEndedError: The world has answered otherwise than when it was recorded.
        """
        messages = self.trajectories[request.task_id].messages
        turns = [n for n, message in enumerate(messages) if message.role == "assistant"]
        if request.round == 0:
            demonstrated = sum(message.role == "assistant" for message in request.messages)
            self._opening[request.task_id] = demonstrated
        number = self._opening[request.task_id] + request.round
        if number >= len(turns):
            raise EpisodeEndedError(REPLAY_DIVERGED)
        before = messages[: turns[number]]
        if not agree(answered_text(before), answered_text(request.messages)):
            raise EpisodeEndedError(REPLAY_DIVERGED)
        return _reply(messages[turns[number]])


def _reply(message: Message) -> Reply:
    text = with_tags(message.content, message.reasoning)
    if message.trained or not text.strip():
        return reply_of(Answer(text, tool_calls=message.tool_calls))
    # A turn whose call could not be read is stored as text without loss; nothing was executed.
    return reply_of(Answer(malformed=(text,)))
