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
