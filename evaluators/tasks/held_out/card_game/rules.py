"""Rules of the card game: damage, abilities and victory.

Derived from AgentBench's sources (`logic/src` of its card game, stage 2): numbers,
the order in which damage is dealt, and rounding towards zero are theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

FISH = ("spray", "flame", "eel", "sunfish")
"""Kinds of fish in the order of a team's positions, the same for both sides."""

MAX_HP = 400
ATTACK = 200
COUNTER_BELOW = 120
"""Hit points, 30 % of the full ones, below which teammates strike back."""
COUNTER_DAMAGE = 30
AREA_SHARE = 0.35
SPRAY_DAMAGE = 70
INFIGHT_DAMAGE = 75
INFIGHT_GAIN = 140
DEFLECT_KEPT, DEFLECT_SHARED = 0.7, 0.3
WOUND_STEP, WOUND_GAIN = 200, 40
GUESS_DAMAGE = 50
TURN_LIMIT = 63
"""Turns of both sides together, each a guess and an action: AgentBench's limit of 128
states, less those before the first turn."""

COUNTERING = frozenset({"spray", "flame"})
DEFLECTING = frozenset({"eel", "sunfish"})
AREA = frozenset({"spray", "eel"})


@dataclass(slots=True)
class Fish:
    """A fish.

    Attributes:
        kind: One of `FISH`.
        place: Position in its team.
        hp: Hit points; may fall below 0 within an action.
        attack: Attack points; a normal attack deals half of them.
        wound: Damage taken that has not yet raised the attack of a deflecting fish.
        dead: Set when an action is over: a falling fish still acts within it.
        known: Whether the other side has guessed its kind.
    """

    kind: str
    place: int
    hp: int = MAX_HP
    attack: int = ATTACK
    wound: int = 0
    dead: bool = False
    known: bool = False


Team = list[Fish]


@dataclass(slots=True)
class Report:
    """Effects of an action, as both sides may see them.

    Attributes:
        place: Position of the fish that acted.
        kind: "normal", "area" or "infight".
        targets: Target positions: of the other team, or of its own in an infight.
        damage: What it deals by itself, before passive abilities.
        passives: Position and name of the passive abilities that it set off; "counter" is
            listed with the position of the fish that was struck.
    """

    place: int
    kind: str
    targets: tuple[int, ...]
    damage: int
    passives: list[tuple[int, str]] = field(default_factory=list)


def new_team() -> Team:
    """Return four fish, unhurt and unknown."""
    return [Fish(kind, place) for place, kind in enumerate(FISH)]


def living(team: Team) -> list[Fish]:
    """Return the fish of a team that are not dead."""
    return [fish for fish in team if not fish.dead]


class Fight:
    """A game between side 0, which moves first, and side 1.

    Attributes:
        teams: The two teams.
        turn: The side to move.
        turns: Number of finished turns.
    """

    def __init__(self) -> None:
        self.teams: tuple[Team, Team] = (new_team(), new_team())
        self.turn = 0
        self.turns = 0

    def can_guess(self, place: int) -> bool:
        """Whether the side to move may guess the fish at a position."""
        enemy = self.teams[1 - self.turn]
        return 0 <= place < len(enemy) and not enemy[place].dead and not enemy[place].known

    def guess(self, place: int, kind: str) -> bool:
        """Guess a fish of the other side; a right guess hurts its whole team."""
        enemy = self.teams[1 - self.turn]
        right = enemy[place].kind == kind
        if right:
            enemy[place].known = True
            for fish in enemy:
                fish.hp = max(0, fish.hp - GUESS_DAMAGE)
            self._bury()
        return right

    def can_act(self, place: int, active: bool, target: int) -> bool:
        """Whether the side to move may take this action; an attack on all accepts any target."""
        mine, enemy = self.teams[self.turn], self.teams[1 - self.turn]
        if not 0 <= place < len(mine) or mine[place].dead:
            return False
        if active and mine[place].kind in AREA:
            return True
        aimed = mine if active else enemy
        if not 0 <= target < len(aimed) or aimed[target].dead:
            return False
        return not (active and target == place)

    def act(self, place: int, active: bool, target: int) -> Report:
        """Execute an action of the side to move; `can_act` must allow it."""
        mine, enemy = self.teams[self.turn], self.teams[1 - self.turn]
        fish = mine[place]
        if active and fish.kind not in AREA:
            report = Report(place, "infight", (target,), INFIGHT_DAMAGE)
            _hurt(mine, mine[target], INFIGHT_DAMAGE, direct=False, report=report)
            fish.attack += INFIGHT_GAIN
        elif active:
            damage = SPRAY_DAMAGE if fish.kind == "spray" else int(fish.attack * AREA_SHARE)
            struck = living(enemy)
            report = Report(place, "area", tuple(each.place for each in struck), damage)
            for each in struck:
                self._strike(fish, each, report)
        else:
            report = Report(place, "normal", (target,), fish.attack // 2)
            self._strike(fish, enemy[target], report)
        self._bury()
        return report

    def end_turn(self) -> None:
        """Pass the turn to the other side."""
        self.turn = 1 - self.turn
        self.turns += 1

    def winner(self) -> int | None:
        """The winning side, or None while the game is running.

        If all fish are dead, the side that acted wins. At the limit more living fish win, then the
        larger sum of hit points, then the healthiest fish, then the side that moved second.
        """
        alive = [len(living(team)) for team in self.teams]
        if not any(alive):
            return self.turn
        if not all(alive):
            return 0 if alive[0] else 1
        if self.turns < TURN_LIMIT:
            return None
        for first, second in zip(*(self._strength(team) for team in self.teams), strict=True):
            if first != second:
                return 0 if first > second else 1
        return 1

    @staticmethod
    def _strength(team: Team) -> Iterator[int]:
        left = [fish.hp for fish in team if fish.hp > 0]
        yield len(left)
        yield sum(left)
        yield max(left, default=0)

    def _strike(self, fish: Fish, target: Fish, report: Report) -> None:
        team = self.teams[1 - self.turn]
        _hurt(team, target, report.damage, direct=True, report=report)
        if target.hp < COUNTER_BELOW:
            for mate in living(team):
                if mate.kind in COUNTERING and mate is not target:
                    report.passives.append((target.place, "counter"))
                    _hurt(self.teams[self.turn], fish, COUNTER_DAMAGE, direct=False, report=report)

    def _bury(self) -> None:
        for team in self.teams:
            for fish in team:
                fish.dead = fish.dead or fish.hp <= 0


def _hurt(team: Team, fish: Fish, damage: int, *, direct: bool, report: Report) -> None:
    """Damage to a fish; only a direct one is shared, so sharing does not go round."""
    if fish.kind in DEFLECTING:
        mates = [mate for mate in living(team) if mate is not fish]
        if direct and mates:
            report.passives.append((fish.place, "deflect"))
            share = int(damage * DEFLECT_SHARED) // len(mates)
            for mate in mates:
                _hurt(team, mate, share, direct=False, report=report)
            damage = int(damage * DEFLECT_KEPT)
        fish.wound += damage
        fish.attack += WOUND_GAIN * (fish.wound // WOUND_STEP)
        fish.wound %= WOUND_STEP
    fish.hp -= damage
