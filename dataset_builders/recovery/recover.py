"""Make recovery splices from the failed episodes of a collection.

Agent-R (arXiv 2501.11425) and AgentRefine (arXiv 2501.01702) train an agent to leave a wrong path:
the failed turns stay in the context without loss, and the loss is on what corrects them. Here the
correction is played in the environment, after a replay of the failed turns, and kept only if the
environment's own reward says that the task is solved.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dataset_builders.collection.filters import threshold_of
from dataset_builders.collection.output import conversations_of
from dataset_builders.conversation import Conversation
from dataset_builders.environments import EnvironmentSpec
from dataset_builders.errors import ConfigError, DataError
from dataset_builders.recovery.episodes import (
    RecordedCollection,
    RecordedEpisode,
    read_collections,
)
from dataset_builders.recovery.replaying import SplicePolicy
from dataset_builders.recovery.search import MADE, Recovered, Search
from dataset_builders.recovery.worlds import environment_of
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.playing import UNFINISHED
from dataset_builders.sources.recovery_settings import RecoverSettings

SOURCE = "recovered"
"""Source of every spliced conversation."""

_GOOD_PER_TASK = 2

Progress = Callable[[int], None]
"""Called with the number of replays that have ended since the last call."""


@dataclass(frozen=True, slots=True)
class RecoveryResult:
    """Splices of a collection and the account of its episodes.

    Attributes:
        conversations: The splices; loss only on what follows the failed turns.
        report: Counts by environment (see docs/methods/recovery.md), JSON-ready.
        refused: Why an environment of the collection was left out, by name.
    """

    conversations: list[Conversation] = field(default_factory=list)
    report: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the account without the conversations."""
        return {
            "splices": len(self.conversations),
            "environments": self.report,
            "refused": self.refused,
        }


def recover(settings: RecoverSettings, on_progress: Progress | None = None) -> RecoveryResult:
    """Continue the failed episodes of a collection until their tasks are solved.

    Args:
        settings: The collection, where its episodes are taken over, and by what.
        on_progress: Called as replays end.

    Raises:
        SourceNotFoundError: There is no collection, or the environment's data is missing.
        ConfigError: No environment of the collection can be replayed; says why.
        DataError: No splice could be made; with the counts.
    """
    result, folder = RecoveryResult(), Path(settings.collection).expanduser()
    others = read_collections(Path(settings.good).expanduser()) if settings.good else []
    for collection in read_collections(folder):
        try:
            spec = environment_of(collection, settings)
        except ConfigError as error:
            result.refused[collection.environment] = str(error)
            continue
        more = [each for each in others if each.environment == collection.environment]
        searches, counts = _searches(collection, more, spec, settings)
        _play(searches, spec, settings.max_concurrency, on_progress)
        result.report[collection.environment] = _account(counts, searches)
        for each in searches:
            result.conversations.extend(_conversations(each, spec))
    if not result.report:
        raise ConfigError("; ".join(result.refused.values()))
    if not result.conversations:
        raise DataError(f"{folder}: found no episode to recover: {summary(result.report)}")
    return result


def count_failed(settings: RecoverSettings) -> int:
    """Return the number of failed episodes that `recover` would replay; plays nothing.

    Raises:
        SourceNotFoundError, ConfigError: See `recover`.
    """
    number, refused = 0, []
    for collection in read_collections(Path(settings.collection).expanduser()):
        try:
            spec = environment_of(collection, settings)
        except ConfigError as error:
            refused.append(str(error))
            continue
        searches, _ = _searches(collection, (), spec, settings)
        number += len(searches)
    if refused and not number:
        raise ConfigError("; ".join(refused))
    return number


def summary(report: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the counts by environment as one line."""
    return "; ".join(
        f"{name}: " + ", ".join(f"{key} {value}" for key, value in counts.items() if value)
        for name, counts in report.items()
    )


def _searches(
    collection: RecordedCollection,
    others: Sequence[RecordedCollection],
    spec: EnvironmentSpec,
    settings: RecoverSettings,
) -> tuple[list[Search], Counter[str]]:
    """Return a search for each failed episode, and the counts of the others."""
    threshold = threshold_of(spec) if settings.min_reward is None else settings.min_reward
    solved: defaultdict[str, list[RecordedEpisode]] = defaultdict(list)
    for each in (collection, *others):
        for episode in each.episodes:
            same = solved[episode.trajectory.task_id]
            if _solves(episode, threshold) and len(same) < _GOOD_PER_TASK:
                same.append(episode)
    counts: Counter[str] = Counter(episodes=len(collection.episodes), solved=0, unfinished=0)
    searches: list[Search] = []
    for episode in collection.episodes:
        if episode.trajectory.exit_reason in UNFINISHED:
            counts["unfinished"] += 1
        elif _solves(episode, threshold):
            counts["solved"] += 1
        else:
            good = solved[episode.trajectory.task_id]
            searches.append(Search(episode, good, settings, threshold))
    return searches, counts


def _solves(episode: RecordedEpisode, threshold: float) -> bool:
    played = episode.trajectory
    return played.reward >= threshold and played.exit_reason not in UNFINISHED


def _play(
    searches: Sequence[Search],
    spec: EnvironmentSpec,
    max_concurrency: int,
    on_progress: Progress | None,
) -> None:
    """Replay in waves: one try of each open search at a time."""
    open_searches = list(searches)
    while open_searches:
        tries = [(each, splice) for each in open_searches if (splice := each.next())]
        policy = SplicePolicy([splice for _, splice in tries])
        tasks = [each.failed.trajectory.task_id for each, _ in tries]
        played = play(
            spec,
            tasks,
            policy,
            batch_size=max_concurrency,
            on_progress=None if on_progress is None else lambda _: on_progress(1),
        )
        for (search, splice), trajectory in zip(tries, played, strict=True):
            search.take(splice, trajectory)
        open_searches = [search for search, _ in tries]


def _account(counts: Counter[str], searches: Sequence[Search]) -> dict[str, Any]:
    outcomes = Counter(each.outcome for each in searches)
    made = [found for each in searches for found in each.made]
    errors = Counter(each.error for each in searches if each.error and not each.made)
    return {
        **counts,
        "failed": len(searches),
        **{name: outcomes[name] for name in sorted(outcomes.keys() | {MADE})},
        "splices": len(made),
        **Counter(f"continued_by_{found.splice.continuation.name}" for found in made),
        "replays": sum(each.tries for each in searches),
        "other_numbers": sum(found.splice.other_numbers for found in made),
        **({"environment_errors": dict(errors)} if errors else {}),
    }


def _conversations(search: Search, spec: EnvironmentSpec) -> Iterator[Conversation]:
    for found in search.made:
        yield _conversation(found, spec)


def _conversation(found: Recovered, spec: EnvironmentSpec) -> Conversation:
    failed, turns = found.splice.failed, found.splice.turns
    ((conversation, _),) = conversations_of(failed.place, found.trajectory, "", spec)
    name = f"{conversation.id}-{failed.attempt}-after-{turns}"
    return replace(conversation, id=name, source=SOURCE, reward=found.trajectory.reward)
