"""AgentTuning's rules on actions: nearest match, failure and loops."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

MAX_FAILURES = 10
LOOP_LENGTH = 5

ROOMS = (
    "hallway",
    "greenhouse",
    "green house",
    "kitchen",
    "bathroom",
    "outside",
    "workshop",
    "art studio",
    "foundry",
    "bedroom",
    "living room",
)

_UNKNOWN = "No known action matches that input."
_FOCUS_WORDS = re.compile(r"\b(?:focus|on|in|to)\b", re.IGNORECASE)
_NO_LETTERS = re.compile(r"[^A-Za-z0-9 ]+")


def one_line(text: str) -> str:
    """Replace line breaks and tabs by blanks, as observations are shown."""
    return text.replace("\n", " ").replace("\t", " ")


def possible_actions(
    valid: Iterable[str], look: str, inventory: str, recent: Sequence[str]
) -> set[str]:
    """Return the simulator's valid actions, without those that AgentTuning excludes.

    Excluded are actions on doors except opening them, and focusing on objects neither visible nor
    carried, on rooms, on air and on the agent. Opening a door to any room is always included.

    Args:
        valid: The simulator's own list.
        look: What "look around" shows.
        inventory: The inventory.
        recent: Log of the episode; its last three entries are taken out by their text,
            which hits only the "look around" that it begins with.
    """
    actions = {*valid, *(f"open door to {room}" for room in ROOMS)}
    actions -= {f"focus on {thing}" for thing in ("agent", "air", *ROOMS)}
    actions -= set(recent[-3:])
    sight = f"{look} {inventory.lower()}"
    return {action for action in actions if _allowed(action, sight)}


def _allowed(action: str, sight: str) -> bool:
    if "door" in action and "open" not in action:
        return False
    if not action.startswith("focus on"):
        return True
    return all(word in sight for word in _FOCUS_WORDS.sub("", action).split(" "))


def exact(written: str) -> str:
    """Return a model's action in the simulator's spelling."""
    return written.replace("green house", "greenhouse").strip()


def near_action(written: str, possible: set[str]) -> str:
    """Return the possible action nearest to a model's action: itself if possible.

    Otherwise the possible one with most words in common, of several the shortest, and of these the
    first in the alphabet (AgentTuning leaves that to chance). If none shares a word, the text
    itself, with only letters, digits and blanks.
    """
    if exact(written) in possible:
        return exact(written)
    words = set(written.split(" "))
    best, shared = written, 0
    for action in sorted(possible, key=lambda each: (len(each), each)):
        if len(words.intersection(action.split(" "))) > shared:
            best, shared = action, len(words.intersection(action.split(" ")))
    return _NO_LETTERS.sub("", best)


def failed(observation: str) -> bool:
    """Whether an observation counts as a failed action.

    The rule is AgentTuning's: any "not" counts, including that in "nothing" and "another".
    """
    return observation == _UNKNOWN or any(
        mark in observation for mark in ("can't", "not", "doesn't")
    )


def loops(recent: Sequence[str]) -> bool:
    """Whether the last five entries of an episode's log are two different ones.

    A single repeated one is not a loop by AgentTuning's rule.
    """
    return len(recent) >= LOOP_LENGTH and len(set(recent[-LOOP_LENGTH:])) == 2
