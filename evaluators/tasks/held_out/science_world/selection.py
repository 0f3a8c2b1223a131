"""AgentTuning's selection of ScienceWorld's variations: 270 of 7,207, from all 30 tasks."""

from __future__ import annotations

import random
from functools import cache
from itertools import zip_longest

from evaluators.tasks.held_out.task_ids import split_task_id

TEST_VARIATIONS: dict[str, tuple[int, int]] = {
    "boil": (21, 9),
    "change-the-state-of-matter-of": (21, 9),
    "chemistry-mix": (24, 8),
    "chemistry-mix-paint-secondary-color": (27, 9),
    "chemistry-mix-paint-tertiary-color": (27, 9),
    "find-animal": (225, 75),
    "find-living-thing": (225, 75),
    "find-non-living-thing": (225, 75),
    "find-plant": (225, 75),
    "freeze": (21, 9),
    "grow-fruit": (93, 33),
    "grow-plant": (93, 33),
    "identify-life-stages-1": (9, 5),
    "identify-life-stages-2": (6, 4),
    "inclined-plane-determine-angle": (126, 42),
    "inclined-plane-friction-named-surfaces": (1038, 348),
    "inclined-plane-friction-unnamed-surfaces": (120, 42),
    "lifespan-longest-lived": (93, 32),
    "lifespan-longest-lived-then-shortest-lived": (93, 32),
    "lifespan-shortest-lived": (93, 32),
    "measure-melting-point-known-substance": (327, 109),
    "measure-melting-point-unknown-substance": (225, 75),
    "melt": (21, 9),
    "mendelian-genetics-known-plant": (90, 30),
    "mendelian-genetics-unknown-plant": (360, 120),
    "power-component": (15, 5),
    "power-component-renewable-vs-nonrenewable-energy": (15, 5),
    "test-conductivity": (675, 225),
    "test-conductivity-of-unknown-substances": (450, 150),
    "use-thermometer": (405, 135),
}
"""First test variation of every task and their number, in ScienceWorld's order of tasks.

As its simulator tells them (a test compares); written down so that no Java program has to
run to name the items.
"""

TASKS = tuple(TEST_VARIATIONS)

_MOST, _FEWER, _SEED = 10, {15: 9, 25: 5}, 1
_PREFIX = "science_world-test-"


def selected(task: int) -> list[int]:
    """Return the selected test variations of a task, by the rule of AgentTuning's code.

    Up to ten of a shuffle with a fixed seed, restarted for every task; 9 of task 15, 5 of 25.

    Args:
        task: Number of the task in ScienceWorld's order.
    """
    first, number = TEST_VARIATIONS[TASKS[task]]
    variations = list(range(first, first + number))
    random.Random(_SEED).shuffle(variations)
    return variations[: _FEWER.get(task, _MOST)]


@cache
def task_ids() -> tuple[str, ...]:
    """Return all 270 ids, cycling through the tasks."""
    columns = [[f"{_PREFIX}{name}-{v}" for v in selected(i)] for i, name in enumerate(TASKS)]
    return tuple(each for row in zip_longest(*columns) for each in row if each is not None)


def task_and_variation(task_id: str) -> tuple[str, int]:
    """Parse an id such as "science_world-test-boil-23".

    Raises:
        ConfigError: It is not one of `task_ids`.
    """
    return split_task_id(task_id, _PREFIX, task_ids())
