"""The two baseline opponents, as far as AgentBench's sources describe them.

Both play randomly; ours use a seeded generator where theirs are seeded by the clock.
"""

from __future__ import annotations

from abc import abstractmethod
from random import Random

from evaluators.tasks.held_out.card_game.rules import AREA, FISH, Fight, Fish, Report, living

ALL_KINDS = (*FISH, "barracuda", "mobula", "octopus", "whiteshark", "hammerhead")
"""Kinds that the second baseline guesses among; only the first four ever play."""

Action = tuple[int, bool, int]
"""Position of the fish, whether its active ability is used, position of the target."""


class Baseline:
    """An opponent that plays for the side to move.

    Args:
        random: Its random number generator.
    """

    def __init__(self, random: Random) -> None:
        self.random = random

    @abstractmethod
    def guess(self, fight: Fight) -> tuple[int, str] | None:
        """Return position and kind of a guess; None for no guess."""

    @abstractmethod
    def act(self, fight: Fight, last: Report | None) -> Action:
        """Return an action; `last` is the other side's last action."""


class Drawing(Baseline):
    """Baseline 1: chooses everything at random."""

    def guess(self, fight: Fight) -> tuple[int, str] | None:
        """Guess a living fish and one of the four kinds; None if that fish is already known."""
        place = self.random.choice(living(fight.teams[1 - fight.turn])).place
        kind = self.random.choice(FISH)
        return (place, kind) if fight.can_guess(place) else None

    def act(self, fight: Fight, last: Report | None) -> Action:
        """Act with a living fish: its active ability at 0.7; known fish only attack."""
        del last
        mine, enemy = living(fight.teams[fight.turn]), living(fight.teams[1 - fight.turn])
        fish = self.random.choice(mine)
        mates = [mate for mate in mine if mate is not fish]
        if self.random.random() >= 0.3 and not fish.known:
            if fish.kind in AREA:
                return fish.place, True, 0
            if mates:
                return fish.place, True, self.random.choice(mates).place
        return fish.place, False, self.random.choice(enemy).place


class Hunting(Baseline):
    """Baseline 2: kills if possible, else attacks all, else retaliates."""

    def guess(self, fight: Fight) -> tuple[int, str] | None:
        """Guess an unknown living fish and one of the nine kinds not known yet.

        Its sources also collect clues, in a format in which they never match, so ours does not.
        """
        enemy = fight.teams[1 - fight.turn]
        places = [fish.place for fish in enemy if not fish.dead and not fish.known]
        known = {fish.kind for fish in enemy if fish.known}
        kinds = [kind for kind in ALL_KINDS if kind not in known]
        return (self.random.choice(places), self.random.choice(kinds)) if places else None

    def act(self, fight: Fight, last: Report | None) -> Action:
        """See the class."""
        mine, enemy = living(fight.teams[fight.turn]), living(fight.teams[1 - fight.turn])
        self.random.shuffle(mine)
        strongest = max(mine, key=lambda fish: fish.attack)
        weakest = min(enemy, key=lambda fish: fish.hp)
        if strongest.attack / 2 >= weakest.hp:
            return strongest.place, False, weakest.place
        area = sorted((fish for fish in mine if fish.kind in AREA), key=_order)
        if len(enemy) >= 2 and area:
            return area[0].place, True, 0
        places = [fish.place for fish in enemy]
        back = last is not None and last.place in places
        return strongest.place, False, last.place if last and back else self.random.choice(places)


def _order(fish: Fish) -> int:
    return FISH.index(fish.kind)


BASELINES: dict[str, type[Baseline]] = {"baseline1": Drawing, "baseline2": Hunting}
