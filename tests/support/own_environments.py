"""Environments as a user writes them: source text of files for tests."""

from __future__ import annotations

from pathlib import Path

GUESS = '''"""Guess a number; the world says higher or lower."""

from dataset_builders.environments.base import OracleStep, ResetResult, StepResult, TextEnvironment
from dataset_builders.environments.dialogue import Dialogue

STARTS = {"train": 1, "dev": 11, "test": 21}


class World(TextEnvironment):
    name = "guess"
    idle_action = "0"

    def __init__(self, top: int = 30):
        super().__init__()
        self.top = top

    def task_ids(self, split):
        return [f"guess-{split}-{STARTS[split] + n}" for n in range(6)]

    def _begin(self, task_id):
        self.number = int(task_id.split("-")[2])
        text = f"Guess a number from 1 to {self.top}."
        return ResetResult(text, text)

    def _act(self, action):
        if int(action) == self.number:
            return StepResult(exit_reason="answered", score=1.0)
        return StepResult("higher" if int(action) < self.number else "lower")

    def oracle(self):
        yield OracleStep("Half of it.", str(self.top // 2))
        yield OracleStep("I see.", str(self.number))


class Guess(Dialogue):
    world = World
    round_limit = 4

    def read(self, said):
        words = said.replace(".", " ").split()
        return next((word for word in words if word.isdigit()), None)

    def write(self, move):
        return f"{move.thought} {move.action}"
'''


def write_guess(folder: Path, old: str = "", new: str = "", name: str = "guess") -> str:
    """Write the guessing game, changed in one place; returns its absolute reference."""
    assert not old or GUESS.count(old) == 1, old
    path = folder / f"{name}.py"
    path.write_text(GUESS.replace(old, new) if old else GUESS, "utf-8")
    return f"{path}:Guess"


DESK = '''"""Pay what is asked, in calls."""

from dataset_builders import ToolEnvironment, tool

TASKS = {
    "train": [{"id": "a", "price": 3}, {"id": "b", "price": 5}],
    "test": [{"id": "c", "price": 7}],
}


class Desk(ToolEnvironment):
    name = "desk"
    round_limit = 4

    def __init__(self, price: int = 0):
        self.fixed = price

    def tasks(self, split):
        return TASKS.get(split, [])

    def reset(self, task):
        self.price, self.paid = self.fixed or task["price"], 0
        system = {"role": "system", "content": "Pay."}
        user = {"role": "user", "content": f"{self.price}, please."}
        return [system, user]

    @tool
    def pay(self, amount: int) -> str:
        """Pay an amount."""
        self.paid += amount
        return f"Paid {self.paid}."

    @tool
    def look(self) -> str:
        """See what is paid."""
        return str(self.paid)

    def score(self):
        return float(self.paid == self.price)

    def solution(self):
        seen = yield "pay", {"amount": self.price}
        assert seen == f"Paid {self.price}."
        yield "Here you are."
'''


def write_desk(folder: Path, old: str = "", new: str = "") -> str:
    """Write an environment of tools, changed in one place; returns its absolute reference."""
    assert not old or DESK.count(old) == 1, old
    path = folder / "desk.py"
    path.write_text(DESK.replace(old, new) if old else DESK, "utf-8")
    return f"{path}:Desk"
