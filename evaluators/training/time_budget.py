"""Time budget: how many items each evaluator may measure.

Evaluation takes at most a share of the run's wall-clock time. All evaluators are limited to the
same fraction of their items, the first ones of a fixed order, so that the checkpoints of a run are
compared on common items.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dataset_builders.errors import ConfigError

PROBE = 2
"""Items measured while the time per item is still unknown."""


_GROWTH = 8
"""A few items predict the time of many poorly."""


@dataclass(frozen=True, slots=True)
class BudgetPlan:
    """An evaluator's planned runs.

    Attributes:
        items: Items that it would measure each time without a budget.
        runs: Remaining runs, including this one.
    """

    items: int
    runs: int


@dataclass(slots=True)
class TimeBudget:
    """Keeps evaluation below a share of a run's wall-clock time.

    Training time is extrapolated from its speed so far; before the first step, from an estimate.
    The remaining budget is distributed over all remaining runs in proportion to their expected
    time, so that the last evaluation gets its share, too. If an evaluation exceeds its share, later
    ones get less.

    Args:
        share: Largest share, above 0 and below 1.
        clock: Returns seconds.

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
        """Record that training begins, or resumes, at this step.

        Args:
            step: Optimizer steps made before.
            step_seconds: Estimate of a step's time; 0 if there is none.
        """
        self._began, self._first, self.spent = self.clock(), step, 0.0
        self._step_seconds = step_seconds

    def training_seconds(self, step: int, steps: int) -> float:
        """Time of training without evaluation, from `start` to the last step."""
        done = step - self._first
        if done > 0:
            self._step_seconds = max(0.0, self.clock() - self._began - self.spent) / done
        return self._step_seconds * (steps - self._first)

    def choose(
        self,
        plan: Mapping[str, BudgetPlan],
        due: list[str],
        step: int,
        steps: int,
        done: int = 0,
    ) -> dict[str, int]:
        """Choose how many items each evaluator may measure now.

        Args:
            plan: All evaluators that still run, by name; those `due` among them.
            due: The ones that run now.
            step: Optimizer steps made.
            steps: Optimizer steps of the whole run.
            done: Items of this run that each of those due has already measured.

        Returns:
            Items by name of those due, `done` included: all of them if time allows, `done` if none
            is left, and `PROBE` if the time of an item, or of training, is unknown.
        """
        whole = self._whole(step, steps)
        left = max(0.0, whole - self.spent)
        fraction = min(1.0, left / wanted) if (wanted := self._wanted(plan, due, done)) else 1.0
        chosen = {}
        for name in due:
            if name not in self._seconds:
                chosen[name] = min(PROBE, plan[name].items) if left or not whole else 0
                continue
            number = done + math.floor(fraction * (plan[name].items - done) + 1e-9)
            if not number and self._seconds[name] <= left / max(1, plan[name].runs):
                number = 1
            chosen[name] = number
        return chosen

    def _whole(self, step: int, steps: int) -> float:
        """Return the seconds that all evaluations of the run may take."""
        return self.share / (1 - self.share) * self.training_seconds(step, steps)

    def _wanted(self, plan: Mapping[str, BudgetPlan], due: list[str], done: int) -> float:
        """Return the seconds that all remaining items of all runs take, at the speed so far."""
        items = {
            name: each.items * each.runs - (done if name in due else 0)
            for name, each in plan.items()
        }
        return math.fsum(self._seconds.get(name, 0.0) * number for name, number in items.items())

    def _is_tight(self, plan: Mapping[str, BudgetPlan], name: str, step: int, steps: int) -> bool:
        """Return whether items of twice the time would exceed what is left."""
        return 2 * self._wanted(plan, [name], 0) > self._whole(step, steps) - self.spent

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
        """Let an evaluator measure as many items as time allows, in several parts.

        If time may not allow all, half is measured before the rest is decided, so that slower
        items are noticed; if little is known, at most `_GROWTH` times the number measured before.

        Args:
            plan: See `choose`.
            name: The evaluator.
            step: See `choose`.
            steps: See `choose`.
            measure: Measures up to a number of items and returns how many of these were not
                measured before the run was resumed.
            agree: Reduces the numbers that processes chose to one: clocks differ.
            finished: Number of items measured before the run was resumed.

        Returns:
            Number of items measured; 0 where there was no time.
        """
        done, new, all_items, is_half = 0, 0, plan[name].items, False
        while done < all_items:
            counted, tight = (done if is_half else 0), False
            number = self.choose(plan, [name], step, steps, counted)[name]
            if not self.knows(name) and number:
                number += max(done, finished)
            elif new:
                number = min(number, done + _GROWTH * new)
            else:
                tight = number == all_items and self._is_tight(plan, name, step, steps)
                if number < all_items or tight:
                    number -= max(0, number - PROBE) // 2
            number = min(all_items, max(number, finished))
            # Below 0 where it is half of all items, so that processes agree on that, too.
            number = agree(-number if tight else number)
            is_half, number = is_half or number < 0, abs(number)
            if number <= done:
                break
            begun = self.clock()
            fresh = measure(number)
            self.took(name, fresh, self.clock() - begun)
            done, new = number, new + fresh
            if counted:
                break  # The share of later runs is not taken item by item.
        return done

    def knows(self, name: str) -> bool:
        """Whether the evaluator has measured an item."""
        return name in self._seconds

    def took(self, name: str, items: int, seconds: float) -> None:
        """Record the time of an evaluation.

        Args:
            name: Its name.
            items: Items that it measured; 0 if it failed.
            seconds: Wall-clock time.
        """
        self.spent += seconds
        if items:
            self._seconds[name] = seconds / items
