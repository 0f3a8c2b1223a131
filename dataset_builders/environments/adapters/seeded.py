"""Tasks that are seeds: the splits of an environment that generates its tasks."""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import Any, ClassVar

from dataset_builders.environments.adapters.naming import class_name
from dataset_builders.environments.base import ResetResult, TextEnvironment
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.errors import ConfigError

FIRST_SEED: dict[str, int] = {"train": 0, "dev": 1_000_000, "test": 2_000_000}
"""First seed of each split. The ranges do not meet; two seeds may still give the same task."""

MOST = 1_000_000
"""Most tasks of a split."""


class SeededWorld(TextEnvironment):
    """A world whose task `<name>-<split>-<n>` is generated from seed `FIRST_SEED[split] + n`.

    Args:
        size: Tasks of each split.
    """

    default_size: ClassVar[int] = 500

    def __init__(self, size: int | None = None) -> None:
        super().__init__()
        self.size = self.default_size if size is None else size
        if not 1 <= self.size <= MOST:
            raise ConfigError(f"{self.name}: size: found {size}, expected 1 to {MOST:,}")

    def task_ids(self, split: str) -> tuple[str, ...]:
        """Return the task ids of a split; see `TextEnvironment.task_ids`."""
        if split not in FIRST_SEED:
            known = ", ".join(FIRST_SEED)
            raise ConfigError(f"{self.name}: split: found {split!r}, expected one of {known}")
        return tuple(f"{self.name}-{split}-{number}" for number in range(self.size))

    def _begin(self, task_id: str) -> ResetResult:
        split, number = self._place(task_id)
        return self._generate(split, number)

    @abstractmethod
    def _generate(self, split: str, number: int) -> ResetResult:
        """Start the task with this number in its split."""

    def _place(self, task_id: str) -> tuple[str, int]:
        name, _, rest = task_id.partition("-")
        split, _, number = rest.partition("-")
        if name != self.name or split not in FIRST_SEED or not re.fullmatch(r"\d{1,6}", number):
            raise ConfigError(
                f"{self.name}: task id: found {task_id!r:.80}, expected {self.name}-"
                "<split>-<number>"
            )
        if int(number) >= self.size:
            raise ConfigError(f"{self.name}: task {task_id}: the split has {self.size:,} tasks")
        return split, int(number)


def named_class(reference: str, dialogue: type[Dialogue], **world: Any) -> type[Dialogue]:
    """Return a subclass of a dialogue whose world has the name of a reference.

    Args:
        reference: Such as "reasoning_gym:leg_counting"; the name is
            `reasoning_gym_leg_counting`.
        dialogue: The dialogue; its `world` is subclassed, too.
        world: Class attributes of the world.
    """
    name = class_name(reference)
    module = dialogue.__module__
    inner = type(name, (dialogue.world,), {"name": name, "__module__": module, **world})
    made: type[Dialogue] = type(name, (dialogue,), {"world": inner, "__module__": module})
    return made
