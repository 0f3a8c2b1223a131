"""Parse a game's goal sentence."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dataset_builders.errors import EnvironmentFailureError

TREATMENTS = {"clean": "sinkbasin", "heat": "microwave", "cool": "fridge"}
"""Treatments of an object before it is put down, and the place of each."""

_ADJECTIVES = {"clean": "clean", "hot": "heat", "cool": "cool"}
_LIGHT = re.compile(
    r"(?:look at|examine(?: the)?) (?P<object>\w+) (?:under|with) the (?P<lamp>\w+)"
)
_PLACE = re.compile(
    r"(?:(?P<verb>clean|heat|cool|find) |put )"
    r"(?:(?P<number>a|an|some|two) )?(?:(?P<adjective>clean|hot|cool) )?(?P<object>\w+)"
    r"(?: and put (?:it|them))? (?:in|on|in/on) (?P<target>\w+)"
)


@dataclass(frozen=True, slots=True)
class Goal:
    """A game's goal.

    Attributes:
        kind: Kind of object, such as "mug".
        target: Kind of receptacle it goes to; "" if it is only looked at.
        treatment: A key of `TREATMENTS`, or "".
        count: How many objects.
        lamp: Kind of lamp to look at it under; "" if it is put down.
    """

    kind: str
    target: str = ""
    treatment: str = ""
    count: int = 1
    lamp: str = ""


def read_goal(sentence: str) -> Goal:
    """Parse a sentence of ALFWorld's templates, such as "put a clean mug in shelf.".

    Raises:
        EnvironmentFailureError: The sentence fits no template.
    """
    text = sentence.strip().rstrip(".").lower()
    if found := _LIGHT.fullmatch(text):
        return Goal(found["object"], lamp=found["lamp"])
    if found := _PLACE.fullmatch(text):
        verb = found["verb"] if found["verb"] in TREATMENTS else ""
        treatment = verb or _ADJECTIVES.get(found["adjective"] or "", "")
        count = 2 if found["number"] == "two" else 1
        return Goal(found["object"], found["target"], treatment, count)
    raise EnvironmentFailureError(f"alfworld: the oracle cannot parse the goal {sentence!r}")


def kind_of(name: str) -> str:
    """Return the kind of a numbered object: "mug" of "mug 2"."""
    return name.rpartition(" ")[0] or name
