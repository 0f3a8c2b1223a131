"""Statistics of where objects are found, learned from the rooms of training games."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

_INSIDE = re.compile(r"\(inReceptacle\s+(\w+)\s+(\w+)\s*\)")
_PLACE = re.compile(r"\(receptacleType\s+(\w+)\s+(\w+)Type\s*\)")

DOORS = frozenset({"cabinet", "drawer", "fridge", "microwave", "safe", "box", "laundryhamper"})
"""Kinds of receptacle that start closed: looking inside takes two moves."""

_PRIOR = 0.02
_PRIOR_WEIGHT = 2.0


class Habits:
    """How often a kind of receptacle holds a kind of object.

    Args:
        problems: PDDL problems of games, by key. A game is excluded from its own statistics: an
            oracle that generates training data must not know the room it is in.
    """

    def __init__(self, problems: Iterable[tuple[str, str]]) -> None:
        self._rooms = {key: _room(problem) for key, problem in problems}
        self._all: tuple[Counter[str], Counter[tuple[str, str]]] = Counter(), Counter()
        for places, pairs in self._rooms.values():
            self._all[0].update(places)
            self._all[1].update(pairs)

    def chance(self, kind: str, place: str, without: str) -> float:
        """Estimate the probability that a kind of receptacle holds such an object, in (0, 1).

        Args:
            kind: Kind of object.
            place: Kind of receptacle.
            without: Key of the game being played.
        """
        own = self._rooms.get(without, (Counter[str](), Counter[tuple[str, str]]()))
        places = self._all[0][place] - own[0][place]
        holding = self._all[1][kind, place] - own[1][kind, place]
        return (holding + _PRIOR * _PRIOR_WEIGHT) / (places + _PRIOR_WEIGHT)

    def worth(self, kind: str, place: str, without: str) -> float:
        """Return the probability per move that looking costs."""
        return self.chance(kind, place, without) / (2 if place in DOORS else 1)


def _room(problem: str) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    kinds = {name: kind.lower() for name, kind in _PLACE.findall(problem)}
    held = {(_kind(name), place) for name, place in _INSIDE.findall(problem) if place in kinds}
    return Counter(kinds.values()), Counter((kind, kinds[place]) for kind, place in held)


def _kind(name: str) -> str:
    return name.partition("_bar_")[0].lower()
