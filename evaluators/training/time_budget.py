"""A time budget: how many items an evaluator may measure.

Evaluation is to take no more than a share of the run's wall-clock time. All evaluators are
cut to the same fraction of their items, the first ones of a fixed order, so that the
checkpoints of a run are compared on common items.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dataset_builders.errors import ConfigError

PROBE = 2
"""Items that an evaluator measures when it is not known yet how long one takes."""


_GROWTH = 8
"""A few items tell little of what many at once take."""


@dataclass(frozen=True, slots=True)
class BudgetPlan:
    """An evaluator's part in a run.

    Attributes:
        items: Items that it would measure each time without a budget.
        runs: Times that it is still to run, this one included.
    """

    items: int
    runs: int


@dataclass(slots=True)
class TimeBudget:
    """Keeps evaluation below a share of the wall-clock time of a run.

    Training's part of the whole is told by its speed so far; before the first step, by an
    estimate. What is left is dealt over all runs that are still to come in proportion to
    what they would take, so that the last evaluation has its part, too. What an evaluation
    took too much, the later ones have less.

    Args:
        share: Largest share, above 0 and below 1.
        clock: Tells seconds.

    Raises:
        ConfigError: The share is out of bounds.
    """

    share: float
    clock: Callable[[], float] = time.monotonic
    spent: float = 0.0
    _seconds: dict[str, float] = field(default_factory=dict)
    _began: float = 0.0
    _first: int = 0
    _step_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ConfigError(f"max_time_share: found {self.share}, expected above 0 and below 1")

    def start(self, step: int, step_seconds: float) -> None:
        """Tell that training begins, or goes on, at this step.

        Args:
            step: Optimizer steps that were made before.
            step_seconds: Estimate of a step's time; 0 where there is none.
        """
        self._began, self._first, self.spent = self.clock(), step, 0.0
        self._step_seconds = step_seconds

    def training_seconds(self, step: int, steps: int) -> float:
        """Time that training takes without evaluation, from `start` to the last step."""
        done = step - self._first
        if done > 0:
            self._step_seconds = max(0.0, self.clock() - self._began - self.spent) / done
        return self._step_seconds * (steps - self._first)

    def choose(
        self, plan: Mapping[str, BudgetPlan], due: list[str], step: int, steps: int
    ) -> dict[str, int]:
        """How many items each evaluator may measure now.

        Args:
            plan: All evaluators that still run, by name; those `due` among them.
            due: The ones that run now.
            step: Optimizer steps made.
            steps: Optimizer steps of the whole run.

        Returns:
            Items by name of those due: all of them where time allows, 0 where there is none
            left, and `PROBE` where it is not known what an item takes, or how long training
            will.
        """
        whole = self.share / (1 - self.share) * self.training_seconds(step, steps)
        left = max(0.0, whole - self.spent)
        wanted = math.fsum(
            self._seconds.get(name, 0.0) * each.items * each.runs for name, each in plan.items()
        )
        fraction = min(1.0, left / wanted) if wanted else 1.0
        chosen = {}
        for name in due:
            if name not in self._seconds:
                chosen[name] = min(PROBE, plan[name].items) if left or not whole else 0
                continue
            number = math.floor(fraction * plan[name].items + 1e-9)
            if not number and self._seconds[name] <= left / max(1, plan[name].runs):
                number = 1
            chosen[name] = number
        return chosen

    def pace(
        self,
        plan: Mapping[str, BudgetPlan],
        name: str,
        step: int,
        steps: int,
        measure: Callable[[int], int],
        agree: Callable[[int], int] = lambda number: number,
        finished: int = 0,
    ) -> int:
        """Let an evaluator measure as many items as there is time for, a part after another.

        Where time does not allow all, a half is measured before the rest is decided on, so
        that items that take longer than before are noticed; and where little is known, only
        `_GROWTH` times what was measured before.

        Args:
            plan: See `choose`.
            name: The evaluator.
            step: See `choose`.
            steps: See `choose`.
            measure: Measures up to the first so many items and tells how many of these had
                not been measured in an earlier life of the run.
            agree: Makes one number of those that several processes chose: clocks differ.
            finished: The first so many items were measured in an earlier life of the run.

        Returns:
            Number of items measured; 0 where there was no time.
        """
        done, new, all_items = 0, 0, plan[name].items
        while done < all_items:
            number = self.choose(plan, [name], step, steps)[name]
            if not self.knows(name) and number:
                number += max(done, finished)
            elif new:
                number = min(number, done + _GROWTH * new)
            elif number < all_items:
                number -= max(0, number - PROBE) // 2
            number = agree(min(all_items, max(number, finished)))
            if number <= done:
                break
            begun = self.clock()
            fresh = measure(number)
            self.took(name, fresh, self.clock() - begun)
            done, new = number, new + fresh
        return done

    def knows(self, name: str) -> bool:
        """Whether the evaluator has measured an item."""
        return name in self._seconds

    def took(self, name: str, items: int, seconds: float) -> None:
        """Tell what an evaluator took.

        Args:
            name: Its name.
            items: Items that it measured; 0 if it broke.
            seconds: Wall-clock time.
        """
        self.spent += seconds
        if items:
            self._seconds[name] = seconds / items
