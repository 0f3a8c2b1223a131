"""Demonstration: one solved variation of the same task.

AgentTuning shows one that its authors annotated with thoughts; it is read from a file given by the
user (`eval_heldout/science-world/prompts/prompt.json` of its repository). Otherwise the simulator's
own solution of the task's first training variation is played once and kept, as data, in the user's
cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dataset_builders.conversation import Message
from dataset_builders.errors import DataError, SourceNotFoundError
from dataset_builders.storage import cache_folder, replace_text
from evaluators.tasks.held_out.science_world.actions import one_line
from evaluators.tasks.held_out.science_world.selection import TASKS
from evaluators.tasks.held_out.science_world.simulator import Simulator

_TRAINING_VARIATION = 0
_LONGEST = 1000

Steps = list[tuple[str, str]]
"""Pairs of what the user says and the action that answers it."""


def solved(simulator: Simulator, task: str) -> Steps:
    """Return the solution of the task's training variation; ends the running episode.

    Raises:
        DataError: The cached one is invalid.
    """
    path = cache_folder("science_world") / f"demonstration-{version('scienceworld')}-{task}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, json.dumps(_play(simulator, task), indent=1))
    found = _read(path)
    if not isinstance(found, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(each, str) for each in pair)
        for pair in found
    ):
        raise DataError(f"{path}: expected a list of pairs of texts; delete it to have it made")
    return [(said, action) for said, action in found]


def _play(simulator: Simulator, task: str) -> Steps:
    actions = simulator.gold_actions(task, _TRAINING_VARIATION)
    state = simulator.begin(task, _TRAINING_VARIATION, step_limit=_LONGEST)
    said = f"{one_line(state.observation)}\n{simulator.description()}"
    steps: Steps = []
    for action in actions:
        steps.append((said, action))
        said = one_line(simulator.step(action).observation)
    return steps


def published(path: str, task: str) -> tuple[Message, ...]:
    """Read AgentTuning's demonstration of a task.

    Args:
        path: Its `prompt.json`.
        task: Name of the task.

    Raises:
        SourceNotFoundError: There is no such file.
        DataError: It is invalid.
    """
    texts = _read(Path(path))
    number = str(TASKS.index(task))
    said = texts.get(number) if isinstance(texts, Mapping) else None
    if not isinstance(said, list) or not said or not all(isinstance(each, str) for each in said):
        found = "nothing" if said is None else type(said).__name__
        raise DataError(f"{path}: {number}: found {found}, expected a list of texts")
    if len(said) % 2:
        raise DataError(f"{path}: {number}: found {len(said)} texts, expected pairs")
    return tuple(Message(("user", "assistant")[index % 2], text) for index, text in enumerate(said))


def label(path: str | None) -> str:
    """Return which demonstrations are shown, for the record of a score."""
    if path is None:
        return "solution of a training variation"
    try:
        content = Path(path).read_bytes()
    except OSError:
        raise SourceNotFoundError(f"{path}: not found; it holds the demonstrations") from None
    return f"{Path(path).name}:{hashlib.sha256(content).hexdigest()[:8]}"


def _read(path: Path) -> Any:
    try:
        return _parsed(path, path.stat().st_mtime_ns)
    except OSError:
        raise SourceNotFoundError(f"{path}: not found; it holds the demonstrations") from None
    except ValueError as error:
        raise DataError(f"{path}: found no JSON ({error}), expected demonstrations") from None


@lru_cache(maxsize=64)
def _parsed(path: Path, _changed: int) -> Any:
    return json.loads(path.read_text("utf-8"))
