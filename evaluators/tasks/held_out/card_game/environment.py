"""Card game environment: the acting side against a baseline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from dataset_builders.environments.base import (
    Isolation,
    Oracle,
    OracleStep,
    ResetResult,
    StepResult,
)
from dataset_builders.environments.base import TextEnvironment as World
from dataset_builders.errors import ConfigError
from evaluators.tasks.held_out.card_game.baselines import BASELINES, Baseline
from evaluators.tasks.held_out.card_game.rules import FISH, Fight, Report, living

GAMES = 50
"""Games against each baseline from each side, as in AgentBench's extended setting."""
TRIES = 5
"""Actions in a row that the rules do not allow, after which the game is lost."""
SIDES = ("first", "second")
GUESS, ACT = "guess", "act"
BAD_ACTION = "bad_action"


class CardGameEnvironment(World):
    """A game; its score is 1 for a win and 0 otherwise.

    An action is JSON. In the guess phase `{"guess_type", "target_position"}`, or `{}` to
    guess nothing; in the action phase `{"pick_fish", "action", "target_position"}`.
    Observations are JSON of what the acting side may see. An illegal guess counts as none.

    Args:
        data: Not used.
        render_mode: Gymnasium's.
        seed: Of what the baselines draw, together with the task's name.
    """

    name: ClassVar[str] = "card_game"
    isolation: Isolation = "inline"
    idle_action: ClassVar[str] = "{}"

    def __init__(
        self, data: str | Path | None = None, render_mode: str | None = None, seed: int = 0
    ) -> None:
        super().__init__(data, render_mode)
        self._seed = seed
        self.phase = GUESS
        self._fight = Fight()
        self._side = 0
        self._baseline: Baseline | None = None
        self._reports: list[Report | None] = [None, None]
        self._guessed: bool | None = None
        self._failures = 0

    def task_ids(self, split: str) -> tuple[str, ...]:
        """Return the game ids: four games against each baseline from each side."""
        if split != "test":
            raise ConfigError(f"{self.name}: split {split!r} is unknown; known: test")
        return tuple(
            f"{self.name}-test-{baseline}-{side}-{game:02d}"
            for game in range(GAMES)
            for side in SIDES
            for baseline in BASELINES
        )

    def _begin(self, task_id: str) -> ResetResult:
        if task_id not in self.task_ids("test"):
            raise ConfigError(f"{self.name}: task {task_id!r} is unknown")
        _, _, baseline, side, _ = task_id.split("-")
        self._baseline = BASELINES[baseline](Random(f"{self._seed}:{task_id}"))
        self._fight, self._side = Fight(), SIDES.index(side)
        self._reports, self._guessed, self._failures, self.phase = [None, None], None, 0, GUESS
        if self._side == 1:
            self._answer()
        return ResetResult(self._seen(), f"Win, moving {side}", {"kind": f"{baseline}-{side}"})

    @property
    def refused(self) -> bool:
        """Whether the last action was illegal."""
        return self._failures > 0

    def legal(self, move: Mapping[str, Any]) -> bool:
        """Whether the rules allow a move in this phase."""
        try:
            target = int(move.get("target_position", -1))
        except (TypeError, ValueError):
            return False
        if self.phase == GUESS:
            return move.get("guess_type") in FISH and self._fight.can_guess(target)
        kind, action = move.get("pick_fish"), move.get("action")
        if kind not in FISH or action not in ("normal", "active"):
            return False
        return self._fight.can_act(FISH.index(kind), action == "active", target)

    def _act(self, action: str) -> StepResult:
        try:
            move = json.loads(action)
        except ValueError:
            move = {}
        move = move if isinstance(move, dict) else {}
        legal = self.legal(move)
        if self.phase == GUESS:
            self._guessed = None
            if legal:
                self._guessed = self._fight.guess(int(move["target_position"]), move["guess_type"])
            self.phase = ACT
            return self._outcome(valid=legal or not move)
        if not legal:
            self._failures += 1
            return self._outcome(valid=False, lost=self._failures >= TRIES)
        self._failures = 0
        place, active = FISH.index(move["pick_fish"]), move["action"] == "active"
        self._reports[self._side] = self._fight.act(place, active, int(move["target_position"]))
        self.phase = GUESS
        if self._fight.winner() is None:
            self._fight.end_turn()
            self._answer()
        return self._outcome()

    def _answer(self) -> None:
        """The baseline's turn, which ends the game or hands the turn back."""
        baseline, fight = self._baseline, self._fight
        if baseline is None or fight.winner() is not None:
            return
        if guess := baseline.guess(fight):
            fight.guess(*guess)
        if fight.winner() is None:
            move = baseline.act(fight, self._reports[self._side])
            self._reports[1 - self._side] = fight.act(*move)
        if fight.winner() is None:
            fight.end_turn()

    def _outcome(self, *, valid: bool = True, lost: bool = False) -> StepResult:
        winner = 1 - self._side if lost else self._fight.winner()
        if winner is None:
            return StepResult(self._seen(), valid=valid)
        won = winner == self._side
        reason = BAD_ACTION if lost else "won" if won else "lost"
        return StepResult(exit_reason=reason, score=float(won), valid=valid)

    def _seen(self) -> str:
        mine, enemy = self._fight.teams[self._side], self._fight.teams[1 - self._side]
        seen = {
            "phase": self.phase,
            "you": [
                {"position": f.place, "fish": f.kind, "hp": max(0, f.hp), "attack": f.attack}
                for f in mine
            ],
            "enemy": [
                {"position": f.place, "fish": f.kind if f.known else "?", "hp": max(0, f.hp)}
                for f in enemy
            ],
            "your_last_guess": {None: "none", True: "right", False: "wrong"}[self._guessed],
            "your_last_action": _told(self._reports[self._side]),
            "enemy_last_action": _told(self._reports[1 - self._side]),
        }
        return json.dumps(seen)

    def oracle(self) -> Oracle:
        """Guess fish known to be there, then search one action ahead."""
        while True:
            if self.phase == GUESS:
                enemy = self._fight.teams[1 - self._side]
                fish = next((f for f in enemy if not f.dead and not f.known), None)
                guess = {"guess_type": fish.kind, "target_position": fish.place} if fish else {}
                yield OracleStep("I know where each kind of fish is.", json.dumps(guess))
            else:
                yield OracleStep("This hurts them most.", json.dumps(self._best()))

    def _best(self) -> dict[str, Any]:
        moves: list[dict[str, Any]] = [
            {"pick_fish": kind, "action": action, "target_position": target}
            for kind in FISH
            for action in ("normal", "active")
            for target in range(len(FISH))
        ]

        def gain(move: Mapping[str, Any]) -> tuple[int, int]:
            after = deepcopy(self._fight)
            active = move["action"] == "active"
            after.act(FISH.index(move["pick_fish"]), active, move["target_position"])
            mine, enemy = (living(after.teams[side]) for side in (self._side, 1 - self._side))
            hp = [sum(fish.hp for fish in team) for team in (mine, enemy)]
            return len(mine) - len(enemy), hp[0] - hp[1]

        return max((move for move in moves if self.legal(move)), key=gain)


def _told(report: Report | None) -> Any:
    if report is None:
        return "none"
    return {
        "position": report.place,
        "type": report.kind,
        "targets": list(report.targets),
        "damage": report.damage,
        "triggered": [f"{name} at {place}" for place, name in report.passives],
    }
