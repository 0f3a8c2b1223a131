"""Folders that harbor writes: a job holds one folder for each trial of an agent at a task.

A trial holds `config.json`, `result.json` once it ended, `verifier/reward.txt` or `reward.json`,
and the trajectories of the agent, `agent/trajectory*.json` (of a task in steps
`steps/<step>/agent/trajectory*.json`). Layout of harbor 0.25.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataset_builders.readers.json_stream import BadRecord

TRAJECTORIES = ("agent/trajectory*.json", "steps/*/agent/trajectory*.json")
_REWARDS = ("verifier/reward.txt", "verifier/reward.json")
_MARKS = ("result.json", "config.json")
_DEPTH = 2
"""Levels of folders below the source that may hold trials: a job, or a folder of jobs."""


def trials_of(root: Path) -> tuple[Path, ...]:
    """Return the folders of trials at a folder or below it, sorted; () if it is no job."""
    level = [root]
    for _ in range(_DEPTH + 1):
        found = sorted(folder for folder in level if _is_trial(folder))
        if found:
            return tuple(found)
        level = [child for folder in level for child in _folders(folder)]
    return ()


def files_of(trial: Path) -> list[Path]:
    """Return the files of a trial that are read, sorted."""
    names = (*_MARKS, *_REWARDS, *TRAJECTORIES)
    return sorted(file for name in names for file in trial.glob(name) if file.is_file())


def trajectories_of(trial: Path) -> list[Path]:
    """Return the trajectories of a trial: the agent's, continuations and subagents, sorted."""
    # `trajectory.json` comes before `trajectory.cont-1.json`, which continues it.
    found = [file for name in TRAJECTORIES for file in trial.glob(name)]
    return sorted(found, key=lambda file: (file.parent, file.name != "trajectory.json", file.name))


def read_json(file: Path) -> Any:
    """Return the value of a JSON file, or a `BadRecord` that names the file if unreadable."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        return BadRecord("unreadable", f"{file.name}: {error.strerror or error}")
    except (ValueError, RecursionError) as error:
        return BadRecord("bad_json", f"{file.name}: not JSON ({error}); the file may be cut off")


def _folders(folder: Path) -> Iterator[Path]:
    try:
        yield from (child for child in folder.iterdir() if child.is_dir())
    except OSError:
        return


def _is_trial(folder: Path) -> bool:
    if not (folder / "agent").is_dir() and not (folder / "steps").is_dir():
        return False
    for name in _MARKS:
        value = read_json(folder / name)
        if isinstance(value, dict) and "trial_name" in value:
            return True
    return any((folder / "agent").glob("trajectory*.json")) and (folder / "result.json").exists()
