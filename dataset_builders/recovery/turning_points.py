"""Choose the turn of a failed episode after which it is continued otherwise."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from dataset_builders.recovery.episodes import RecordedEpisode
from dataset_builders.sources.recovery_settings import RecoverSettings

_LOOKED_AT = 400  # characters of an observation: errors say so at their beginning
_ERROR = re.compile(
    r"\A\W*(?:no|none)\b"
    r"|\b(?:errors?|exception|traceback|invalid|no such|not found|not recognized|unknown"
    r"|does(?: not|n't) exist|denied|cannot|can't|could not|unable to|failed|failure"
    r"|nothing happens|malformed|not executed|there is no|has no)\b",
    re.I,
)


def is_error(observation: str) -> bool:
    """Whether an observation reads as an error, or says that nothing was found.

    Rows of a database's result are none, whatever words they hold.
    """
    start = observation.lstrip()[:_LOOKED_AT]
    return not start.startswith("[") and _ERROR.search(start) is not None


def shared_turns(episode: RecordedEpisode, good: RecordedEpisode) -> int:
    """Return the number of turns from the start in which both take the same actions."""
    number = 0
    for number in range(min(episode.rounds, good.rounds)):
        if episode.action(number) != good.action(number):
            return number
    return number + 1 if episode.rounds and good.rounds else 0


def turning_points(
    episode: RecordedEpisode, good: Sequence[RecordedEpisode], settings: RecoverSettings
) -> list[int]:
    """Return numbers of failed turns to keep, in the order in which they are tried.

    Args:
        episode: The failed episode; its last turn ended it and is never kept.
        good: Successful episodes of the same task.
        settings: The rule.

    Returns:
        Numbers from 1 to the episode's rounds less 1; none for an episode of one turn, or where
        `first_error` finds only the turn that ended the episode.
    """
    most = episode.rounds - 1
    if settings.at == "last_recoverable":
        return list(range(most, 0, -1))
    if settings.at == "random":
        task = f"{settings.seed}/{episode.trajectory.task_id}/{episode.attempt}"
        return random.Random(f"agenttuning/recover/{task}").sample(range(1, most + 1), most)
    errors = [turn + 1 for turn in range(most) if _goes_wrong(episode, turn)]
    if errors:
        return errors
    if good:  # None if the turn that differs is the one that ended the episode.
        first = min(shared_turns(episode, each) for each in good) + 1
        return [first] if first <= most else []
    return list(range(most, 0, -1))


def _goes_wrong(episode: RecordedEpisode, turn: int) -> bool:
    """Whether a turn is answered by an error, or by what was shown before."""
    after = episode.after(turn)
    return is_error(after) or after == episode.before(turn)
