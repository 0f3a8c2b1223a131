"""Search oracle with a player's knowledge: it searches and remembers what it has seen.

Its moves are explained by what it has seen, so they can serve as training data.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Generator

from dataset_builders.environments.alfworld.goals import TREATMENTS, Goal, kind_of
from dataset_builders.environments.alfworld.thoughts import plural, say
from dataset_builders.environments.base import OracleStep

_SEES = re.compile(r"you see (.*?)\.(?:\s|$)", re.DOTALL)
_THING = re.compile(r"\ban? (\w+ \d+)")
_CLOSED = re.compile(r"\bis closed\b")

_Steps = Generator[OracleStep, str, None]
_Found = Generator[OracleStep, str, str]

Worth = Callable[[str, str], float]
"""Priority of searching a kind of receptacle for a kind of object."""


class SearchOracle:
    """Plays one game from its observations alone.

    Args:
        goal: The goal.
        room: The first observation, which names all receptacles.
        worth: Which receptacles to visit first.
        seed: Varies the wording of the thoughts.
    """

    def __init__(self, goal: Goal, room: str, worth: Worth, seed: str) -> None:
        self._goal = goal
        self._worth = worth
        self._random = random.Random(seed)
        self._places = things_seen(room)
        self._unseen = list(self._places)
        self._contents: dict[str, list[str]] = {}
        self._done: set[str] = set()
        self._at = ""
        self._reason = ""

    def moves(self) -> _Steps:
        """Yield steps and receive each observation; end when the search is exhausted."""
        goal = self._goal
        self._reason = self._say("plan_light" if goal.lamp else "plan")
        target = ""
        while len(self._done) < goal.count:
            if self._done:
                self._reason = self._say("again")
            name = yield from self._find(goal.kind)
            if not name:
                return
            if not target and self._is_in_place(name):
                target = self._at
                self._done.add(name)
                continue
            yield from self._take(name)
            if goal.lamp:
                yield from self._light(name)
                return
            if goal.treatment:
                yield from self._treat(name)
            target = target or self._best_target()
            yield from self._visit(target, self._say("carry", object=name, place=target))
            yield from self._do("put", f"put {name} in/on {target}", object=name, place=target)
            self._done.add(name)

    def _is_in_place(self, name: str) -> bool:
        """Whether a found object may stay where it is, because the other one is brought to it."""
        return (
            self._goal.count == 2
            and not self._goal.treatment
            and kind_of(self._at) == self._goal.target
            and name not in self._done
        )

    def _take(self, name: str) -> _Steps:
        yield from self._do("take", f"take {name} from {self._at}", object=name, place=self._at)
        self._contents[self._at].remove(name)

    def _find(self, kind: str) -> _Found:
        """Search for an object; return its name, or "" if all places have been seen."""
        while True:
            if known := self._known(kind):
                name, place = known
                if place != self._at:
                    yield from self._visit(place, self._say("known", object=name, place=place))
                return name
            if not self._unseen:
                return ""
            place = max(self._unseen, key=lambda each: self._worth(kind, kind_of(each)))
            yield from self._visit(place, self._say("search", kind=kind, place=place))

    def _light(self, name: str) -> _Steps:
        lamp = yield from self._find(self._goal.lamp)
        if lamp:
            yield from self._do("use", f"use {lamp}", object=name, lamp=lamp)

    def _treat(self, name: str) -> _Steps:
        verb = self._goal.treatment
        place = next((p for p in self._places if kind_of(p) == TREATMENTS[verb]), "")
        if not place:
            return
        if place != self._at:
            thought = self._say("treat", object=name, place=place, verb=verb)
            yield from self._face(thought, f"go to {place}", place)
        yield from self._do(verb, f"{verb} {name} with {place}", object=name, place=place)

    def _visit(self, place: str, thought: str) -> _Steps:
        if place != self._at:
            yield from self._face(thought, f"go to {place}", place)
        if place not in self._contents:
            thought = self._say("open", place=place)
            yield from self._face(thought, f"open {place}", place)
            self._contents.setdefault(place, [])

    def _do(self, piece: str, action: str, **values: str) -> _Steps:
        yield self._move(self._say(piece, **values), action)

    def _face(self, thought: str, action: str, place: str) -> _Steps:
        observation = yield self._move(thought, action)
        self._at = place
        if not _CLOSED.search(observation):
            self._contents[place] = things_seen(observation)
            if place in self._unseen:
                self._unseen.remove(place)

    def _move(self, thought: str, action: str) -> OracleStep:
        reason, self._reason = self._reason, ""
        return OracleStep(f"{reason} {thought}".strip(), action)

    def _known(self, kind: str) -> tuple[str, str] | None:
        """Return a seen object of a kind, preferably at the current place."""
        places = sorted(self._contents, key=lambda place: place != self._at)
        for place in places:
            for name in self._contents[place]:
                if kind_of(name) == kind and name not in self._done:
                    return name, place
        return None

    def _best_target(self) -> str:
        """Return a place of the goal's kind, preferably one with such an object if two are due."""
        places = [place for place in self._places if kind_of(place) == self._goal.target]
        # One that has been looked into is open.
        return min(places, key=lambda place: (place != self._at, place not in self._contents))

    def _say(self, piece: str, **values: str) -> str:
        goal = self._goal
        number = f"two {plural(goal.kind)}" if goal.count > 1 else f"one {goal.kind}"
        known = {"kind": goal.kind, "wanted": number, "target": goal.target, "lamp": goal.lamp}
        return say(piece, self._random, known | values)


def things_seen(observation: str) -> list[str]:
    """Return the names of all objects that an observation lists, such as "mug 1"."""
    found = _SEES.search(observation)
    return _THING.findall(found.group(1)) if found else []
