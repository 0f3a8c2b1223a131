"""Which turn of a failed episode is taken over."""

from __future__ import annotations

import pytest

from dataset_builders.conversation import Message
from dataset_builders.recovery.episodes import RecordedEpisode
from dataset_builders.recovery.turning_points import is_error, shared_turns, turning_points
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.sources.recovery_settings import RecoverSettings


def episode(*turns: tuple[str, str]) -> RecordedEpisode:
    """Turns of the policy with what follows each, after a demonstration."""
    messages = [Message("user", "example"), Message("assistant", "ok"), Message("user", "task")]
    for action, observation in turns:
        messages += [Message("assistant", action, trained=True), Message("user", observation)]
    played = Trajectory("w-train-1", "w", "train", tuple(messages[:-1]), 0, "x", len(turns), 0)
    return RecordedEpisode(0, 0, played, ())


@pytest.mark.parametrize(
    ("observation", "found"),
    [
        ("Nothing happens.", True),
        ("near SELEC: syntax error", True),
        ("bash: foo: command not found", True),
        ("No orders of a@b.c.", True),
        ("Error: unknown tool", True),
        ("[('error', 3)]", False),
        ("You open the drawer 1. In it, you see a mug 1.", False),
        ("Nobody else; the north wing", False),
    ],
)
def test_errors_are_read_from_the_start_of_an_observation(observation: str, found: bool) -> None:
    assert is_error(observation) == found


def test_the_first_error_comes_before_the_first_difference() -> None:
    failed = episode(("a", "fine"), ("b", "Nothing happens."), ("c", "fine"), ("d", ""))
    good = episode(("a", "fine"), ("x", "fine"), ("y", ""))
    assert shared_turns(failed, good) == 1
    assert turning_points(failed, [good], RecoverSettings("c")) == [2]
    calm = episode(("a", "fine"), ("a2", "good"), ("c", "fine"), ("d", ""))
    assert turning_points(calm, [good], RecoverSettings("c")) == [2]
    assert turning_points(calm, [], RecoverSettings("c")) == [3, 2, 1]  # The last one ended it.
    stuck = episode(("a", "fine"), ("a2", "fine"), ("c", "good"), ("d", ""))
    assert turning_points(stuck, [], RecoverSettings("c")) == [2]
    same = episode(("a", "fine"), ("x", "good"), ("z", ""))
    assert turning_points(same, [good], RecoverSettings("c")) == []
    assert turning_points(episode(("a", "")), [], RecoverSettings("c")) == []


def test_the_other_rules_never_keep_the_last_turn() -> None:
    failed = episode(*((name, "fine") for name in "abcde"))
    assert turning_points(failed, [], RecoverSettings("c", at="last_recoverable")) == [4, 3, 2, 1]
    drawn = [
        turning_points(failed, [], RecoverSettings("c", at="random", seed=s)) for s in range(9)
    ]
    assert all(sorted(each) == [1, 2, 3, 4] for each in drawn)
    assert len({tuple(each) for each in drawn}) > 1
