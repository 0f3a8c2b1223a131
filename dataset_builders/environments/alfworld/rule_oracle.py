"""Rule oracle with full knowledge: it reads the game's facts.

It shows that a game can be won in few moves; its moves are poor training data, because nothing that
a player can see explains them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from dataset_builders.environments.alfworld.engine import Fact
from dataset_builders.environments.alfworld.goals import TREATMENTS, Goal, kind_of
from dataset_builders.environments.base import OracleStep
from dataset_builders.errors import EnvironmentFailureError


class RuleOracle:
    """Plans one game from its facts.

    Args:
        goal: The goal.
        facts: Facts at the start.
    """

    def __init__(self, goal: Goal, facts: Iterable[Fact]) -> None:
        self._goal = goal
        self._facts = frozenset(facts)
        self._holder = {f[1]: f[2] for f in self._facts if f[0] == "inreceptacle"}
        self._closed = {f[1] for f in self._facts if f[0] == "openable"} - {
            f[1] for f in self._facts if f[0] == "opened"
        }
        self._at = ""

    def moves(self) -> Iterator[OracleStep]:
        """Yield the plan.

        Raises:
            EnvironmentFailureError: No object or no place of the goal is in the game.
        """
        if self._goal.lamp:
            yield from self._look()
        else:
            target, objects = self._choose()
            for name in objects:
                yield from self._place(name, target)

    def _look(self) -> Iterator[OracleStep]:
        name = self._objects()[0]
        yield from self._fetch(name)
        lamp = self._one(self._of_kind(self._goal.lamp), self._goal.lamp)
        yield from self._go(self._holder[lamp], f"The {lamp} gives the light for the {name}.")
        yield OracleStep(f"With the {lamp} on I can look at the {name}.", f"use {lamp}")

    def _place(self, name: str, target: str) -> Iterator[OracleStep]:
        yield from self._fetch(name)
        if self._goal.treatment:
            place = TREATMENTS[self._goal.treatment]
            place = self._one(self._receptacles(place), place)
            yield from self._go(place, f"The {name} has to be treated at the {place} first.")
            verb = self._goal.treatment
            yield OracleStep(f"Here I can {verb} the {name}.", f"{verb} {name} with {place}")
        yield from self._go(target, f"The {name} belongs in or on the {target}.")
        yield from self._open(target)
        yield OracleStep(f"I leave the {name} here.", f"put {name} in/on {target}")

    def _fetch(self, name: str) -> Iterator[OracleStep]:
        place = self._holder[name]
        yield from self._go(place, f"The {name} is at the {place}.")
        yield from self._open(place)
        yield OracleStep(f"I need the {name}.", f"take {name} from {place}")

    def _go(self, place: str, thought: str) -> Iterator[OracleStep]:
        if place != self._at:
            self._at = place
            yield OracleStep(thought, f"go to {place}")

    def _open(self, place: str) -> Iterator[OracleStep]:
        if place in self._closed:
            self._closed.remove(place)
            yield OracleStep(f"The {place} has to be open.", f"open {place}")

    def _choose(self) -> tuple[str, list[str]]:
        """Choose objects and their places; objects already in place stay."""
        objects, places = self._objects(), self._receptacles(self._goal.target)
        present: dict[str, list[str]] = defaultdict(list)
        if not self._goal.treatment:
            for name in objects:
                present[self._holder[name]].append(name)
        target = max(
            [self._one(places, self._goal.target), *places], key=lambda place: len(present[place])
        )
        elsewhere = [name for name in objects if name not in present[target]]
        return target, elsewhere[: self._goal.count - len(present[target])]

    def _objects(self) -> list[str]:
        names = [
            name
            for name in self._of_kind(self._goal.kind)
            if ("pickupable", name) in self._facts and self._treatable(name)
        ]
        self._one(names, self._goal.kind)
        # Prefer open places: they save a move.
        return sorted(names, key=lambda name: self._holder[name] in self._closed)

    def _treatable(self, name: str) -> bool:
        verb = self._goal.treatment
        return not verb or (f"{verb}able", name) in self._facts

    def _of_kind(self, kind: str) -> list[str]:
        return sorted(name for name in self._holder if kind_of(name) == kind)

    def _receptacles(self, kind: str) -> list[str]:
        places = {fact[1] for fact in self._facts if fact[0] == "receptacleatlocation"}
        return sorted(place for place in places if kind_of(place) == kind)

    @staticmethod
    def _one(names: list[str], kind: str) -> str:
        if not names:
            raise EnvironmentFailureError(f"alfworld: there is no {kind} in this game")
        return names[0]
