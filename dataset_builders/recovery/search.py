"""Search of a failed episode's splices: turns and continuations, until one solves the task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from dataset_builders.collection.filters import can_be_trained
from dataset_builders.recovery.episodes import RecordedEpisode
from dataset_builders.recovery.replaying import KEPT, ORACLE, Continuation, Splice
from dataset_builders.recovery.turning_points import shared_turns, turning_points
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.sources.recovery_settings import RecoverSettings

MADE = "made"
ONE_TURN = "one_turn"
NOT_REPLAYABLE = "not_replayable"
NOT_RECOVERABLE = "not_recoverable"


@dataclass(frozen=True, slots=True)
class Recovered:
    """A splice that solves its task.

    Attributes:
        splice: What was played.
        trajectory: How it ended; only the turns of the continuation are trained on.
    """

    splice: Splice
    trajectory: Trajectory


@dataclass(slots=True)
class Search:
    """The tries of one failed episode.

    Args:
        failed: The episode.
        good: Successful episodes of the same task.
        settings: Rules and limits.
        threshold: Reward at which the task counts as solved.

    Attributes:
        made: The splices that solve the task, in the order in which they were found.
        tries: Replays so far.
        error: Failure of the environment in the last try that had one, or "".
    """

    failed: RecordedEpisode
    good: Sequence[RecordedEpisode]
    settings: RecoverSettings
    threshold: float
    made: list[Recovered] = field(default_factory=list)
    tries: int = 0
    error: str = ""
    _diverged_at: int | None = None
    _untried: Iterator[Splice] = field(init=False)

    def __post_init__(self) -> None:
        self._untried = self._splices()

    def next(self) -> Splice | None:
        """Return the next try, or None if there is none or enough are made."""
        full = len(self.made) >= self.settings.per_episode
        if full or self.tries >= self.settings.max_tries:
            return None
        splice = next(self._untried, None)
        self.tries += splice is not None
        return splice

    def take(self, splice: Splice, played: Trajectory) -> None:
        """Record the result of a try."""
        if played.num_rounds < splice.turns and splice.diverged_at is None:
            splice.diverged_at = played.num_rounds  # The world ended the episode too early.
        if splice.diverged_at is not None:
            earlier = (self._diverged_at, splice.diverged_at)
            self._diverged_at = min(at for at in earlier if at is not None)
        self.error = played.error or self.error
        if played.num_rounds <= splice.turns or played.reward < self.threshold:
            return
        trained = trained_from(played, splice.turns)
        if not can_be_trained(trained):
            self.made.append(Recovered(splice, trained))

    @property
    def outcome(self) -> str:
        """Outcome of the episode: a key of the report."""
        if self.made:
            return MADE
        if self.failed.rounds < 2:
            return ONE_TURN
        return NOT_RECOVERABLE if self._diverged_at is None else NOT_REPLAYABLE

    def _splices(self) -> Iterator[Splice]:
        """Yield tries lazily: turns that a former try found not replayable are left out."""
        for turns in turning_points(self.failed, self.good, self.settings):
            for continuation in self._continuations():
                made = any(each.splice.turns == turns for each in self.made)
                lost = self._diverged_at is not None and turns >= self._diverged_at
                if not (made or lost):
                    yield Splice(self.failed, turns, continuation)

    def _continuations(self) -> Iterator[Continuation]:
        wanted = self.settings.continuation
        if wanted != ORACLE:
            for good in self.good:
                # Its tail after the turns that both share, then all of it.
                for start in dict.fromkeys((shared_turns(self.failed, good), 0)):
                    if start < good.rounds:
                        yield Continuation(good, start)
        if wanted != KEPT:
            yield Continuation()


def trained_from(played: Trajectory, turns: int) -> Trajectory:
    """Return the trajectory with loss only on the policy's turns after the first `turns`."""
    spoken = [n for n, message in enumerate(played.messages) if message.role == "assistant"]
    first = spoken[len(spoken) - played.num_rounds :][turns]
    messages = tuple(
        replace(message, trained=message.trained and number >= first)
        for number, message in enumerate(played.messages)
    )
    return replace(played, messages=messages)
