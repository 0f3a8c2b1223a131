"""Texts of the search oracle's thoughts, several per situation."""

from __future__ import annotations

import random
from collections.abc import Mapping

THOUGHTS: dict[str, tuple[str, ...]] = {
    "plan": (
        "The task needs {wanted} in or on the {target}, so finding it comes first.",
        "Before anything goes to the {target}, I have to find {wanted}.",
        "I am asked for {wanted} at the {target} and have not seen any yet.",
    ),
    "plan_light": (
        "I have to hold the {kind} while the {lamp} is on, so I need to find both.",
        "First I find the {kind}, then the {lamp} to look at it with.",
    ),
    "search": (
        "A {kind} could be at the {place}.",
        "I check the {place} for a {kind}.",
        "No {kind} so far; the {place} is worth a look.",
        "Next I look for a {kind} at the {place}.",
    ),
    "open": (
        "The {place} is closed, so I open it.",
        "I cannot see inside the {place} until it is open.",
        "It is closed; I open the {place}.",
    ),
    "known": (
        "I saw the {object} at the {place} before, so I go back there.",
        "The {object} was at the {place}.",
    ),
    "take": (
        "There is the {object}. I take it.",
        "The {object} at the {place} is what I need, so I pick it up.",
        "I have found the {object}; now I take it.",
    ),
    "again": (
        "One {kind} is in place. I need another one.",
        "That was the first {kind}; a second one is needed.",
    ),
    "treat": (
        "I have the {object}. To {verb} it I go to the {place}.",
        "Now I have to {verb} the {object}, which the {place} is for.",
    ),
    "clean": (
        "At the {place} I can clean the {object}.",
        "I clean the {object} in the {place}.",
    ),
    "heat": (
        "The {place} will heat the {object}.",
        "I heat the {object} with the {place}.",
    ),
    "cool": (
        "The {place} will cool the {object}.",
        "I cool the {object} with the {place}.",
    ),
    "carry": (
        "Now I bring the {object} to the {place}.",
        "The {object} is ready to go to the {place}.",
        "What is left is to put the {object} at the {place}.",
    ),
    "put": (
        "I am at the {place} and can put the {object} down.",
        "The {object} goes here.",
        "I leave the {object} in or on the {place}.",
    ),
    "use": (
        "I hold the {object}, and the {lamp} is here. I turn it on.",
        "With the {lamp} on I can look at the {object}.",
    ),
}
"""Situation to texts, with `{field}` placeholders for names."""


def say(occasion: str, chance: random.Random, names: Mapping[str, str]) -> str:
    """Return one of a situation's texts.

    Args:
        occasion: A key of `THOUGHTS`.
        chance: Selects the text.
        names: Values of the fields.
    """
    return chance.choice(THOUGHTS[occasion]).format_map(names)


def plural(kind: str) -> str:
    """Return the plural of a kind of object."""
    if kind.endswith("knife"):
        return f"{kind[:-2]}ves"
    return f"{kind}es" if kind.endswith(("ch", "sh", "ss", "x")) else f"{kind}s"
