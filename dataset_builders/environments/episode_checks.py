"""Checks of a running episode: that there is one, and what it returns."""

from __future__ import annotations

from typing import SupportsFloat, TypeVar

from gymnasium.error import ResetNeeded

from dataset_builders.errors import EnvironmentFailureError

_Episode = TypeVar("_Episode")


def require_episode(episode: _Episode | None) -> _Episode:
    """Return the running episode.

    Raises:
        gymnasium.error.ResetNeeded: No episode has been started.
    """
    if episode is None:
        raise ResetNeeded("no task has been started; call reset")
    return episode


def check_score(name: str, score: object) -> None:
    """Check an episode's score.

    Raises:
        EnvironmentFailureError: It is not a number in [0, 1].
    """
    if not isinstance(score, SupportsFloat) or not 0.0 <= float(score) <= 1.0:
        raise EnvironmentFailureError(f"{name}: score: found {score!r:.60}, expected 0 to 1")


def check_text(name: str, observation: object) -> None:
    """Check an observation.

    Raises:
        EnvironmentFailureError: It is no text.
    """
    if not isinstance(observation, str):
        found = type(observation).__name__
        raise EnvironmentFailureError(f"{name}: observation: found {found}, expected text")
