"""Group runs into arms: runs with equal settings but for the seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agenttuning_plugin.reports.runs.read import BASE, Run, Runs
from agenttuning_plugin.reports.runs.settings import lookup
from dataset_builders.errors import ConfigError

ARM = "arm"
"""Key that groups by the arms' names."""

_NOT_SET = "-"
_LONGEST = 40  # characters of a value in a table


@dataclass(frozen=True, slots=True)
class Arm:
    """Runs that are replicates of each other.

    Attributes:
        label: Name in the table.
        values: Shown value by key; without an entry where the key does not apply.
        runs: Its runs, by seed.
    """

    label: str
    values: Mapping[str, str]
    runs: tuple[Run, ...]


def group_runs(found: Runs, by: Sequence[str] = ()) -> tuple[list[str], list[Arm], list[str]]:
    """Group runs by keys.

    Args:
        found: The runs.
        by: Keys, dotted or their last part; by default the swept keys of a sweep, otherwise all
            keys in which the runs differ.

    Returns:
        The keys; the arms, in the order of the runs; remarks on runs that were pooled.

    Raises:
        ConfigError: A key is unknown or ambiguous; names those that differ.
    """
    differing = differing_keys(found.runs)
    keys = [_resolve(name, found, differing) for name in by] or found.keys or differing
    shown = {key: _shown_values(found.runs, key) for key in keys if key != ARM}
    shown[ARM] = {run.name: run.group or run.name for run in found.runs}
    members: dict[tuple[str, ...], list[Run]] = {}
    for run in found.runs:
        identity = tuple(shown[key][run.name] for key in keys)
        if not by and (run.group or not run.settings):  # of a sweep, or an evaluation
            identity = ("", run.group or run.name)
        members.setdefault(identity, []).append(run)
    arms, remarks = [], []
    for runs in members.values():
        ordered = sorted(runs, key=lambda run: (run.seed is None, run.seed or 0))
        first, values = ordered[0], {key: shown[key][ordered[0].name] for key in keys}
        if not by and (first.group or not first.settings):
            values = dict(first.values)
        label = _label(first, values)
        arms.append(Arm(label, values, tuple(ordered)))
        if by and (others := [key for key in differing_keys(runs) if key not in keys]):
            remarks.append(f"{label}: pools runs that also differ in {', '.join(others)}")
    return keys, arms, remarks


def differing_keys(runs: Sequence[Run]) -> list[str]:
    """Return the keys in which trained runs differ, in the order of their recipes."""
    trained = [run for run in runs if run.settings]
    keys = dict.fromkeys(key for run in trained for key in run.settings)
    return [key for key in keys if len({_canonical(run.settings.get(key)) for run in trained}) > 1]


def find_arm(arms: Sequence[Arm], name: str | Path) -> Arm:
    """Return the arm of a label, of a name in the sweep, or of a run's name or folder.

    Raises:
        ConfigError: There is none; lists them.
    """
    for arm in arms:
        names = {arm.label, *(run.name for run in arm.runs), *(run.group for run in arm.runs)}
        if name in names - {""} or any(run.folder == name for run in arm.runs):
            return arm
    labels = ", ".join([BASE, *(arm.label for arm in arms if arm.label != BASE)])
    raise ConfigError(f"`against`: found {str(name)!r}, expected one of {labels}")


def _label(run: Run, values: Mapping[str, str]) -> str:
    if not values or list(values) == [ARM]:
        return run.group or run.name
    place, slash, _ = run.group.partition("/")  # of several sweeps
    parts = [f"{key.rpartition('.')[2]} {value}" for key, value in values.items()]
    return (f"{place}: " if slash else "") + ", ".join(parts)


def _resolve(name: str, found: Runs, differing: Sequence[str]) -> str:
    """Return the full key of a name given by the user."""
    if name == ARM:
        return ARM
    known = dict.fromkeys(
        ".".join(key.split(".")[: depth + 1])
        for run in found.runs
        for key in (*run.values, *run.settings)
        for depth in range(key.count(".") + 1)
    )
    matches = [name] if name in known else [key for key in known if key.endswith(f".{name}")]
    preferred = [key for key in matches if key in found.keys or key in differing] or matches
    if len(preferred) == 1:
        return preferred[0]
    expected = [ARM, *found.keys, *(key for key in differing if key not in found.keys)]
    what = f"{name!r}, which may be {', '.join(preferred)}" if preferred else repr(name)
    raise ConfigError(f"`by`: found {what}, expected keys such as {', '.join(expected)}")


def _shown_values(runs: Sequence[Run], key: str) -> dict[str, str]:
    """Return each run's value of a key as shown: distinct values look different, equal ones alike.

    A run outside of the key's sweep that has one of its values shows that value's name.
    """
    values = {run.name: lookup(run.settings, key) for run in runs}
    texts = {name: _canonical(value) for name, value in values.items()}
    names = {texts[run.name]: run.values[key] for run in runs if key in run.values}
    short, identity = {}, {}
    for run in runs:
        text = texts[run.name]
        name = run.values.get(key, names.get(text))
        short[run.name] = _shorten(values[run.name]) if name is None else name
        identity[run.name] = text if name is None else name
    clashes = {
        label
        for label in short.values()
        if len({identity[name] for name in short if short[name] == label}) > 1
    }
    return {
        name: f"{label} #{hashlib.sha256(identity[name].encode()).hexdigest()[:4]}"
        if label in clashes
        else label
        for name, label in short.items()
    }


def _shorten(value: Any) -> str:
    """Return a value for a table; of sources, the names of their files."""
    if value is None:
        return _NOT_SET
    if isinstance(value, str) and "/" in value:
        return Path(value).stem
    entries = value if isinstance(value, list) else [value]
    if entries and all(isinstance(each, Mapping) and each.get("path") for each in entries):
        return "+".join(Path(str(each["path"])).stem for each in entries)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
