"""Read training runs and evaluations from their folders, or all arms of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agenttuning_plugin.reports.model_record import MODEL_RECORD, json_object, read_model_record
from agenttuning_plugin.reports.runs.cost import Cost, read_cost
from agenttuning_plugin.reports.runs.settings import read_settings
from dataset_builders.errors import ConfigError, DataError, SourceNotFoundError
from dataset_builders.manifest.store import MANIFEST_FILE
from evaluators.evaluator import RECORDS_FILE
from evaluators.results.evaluations import read_evaluations

Row = Mapping[str, Any]

SWEEP_FILE = "sweep.json"
"""File in a sweep's folder: its keys, seeds and arms in order."""
BASE = "base"
"""Folder in a sweep's folder with the evaluation of the base; also the name of that arm."""

_FINISHED = "finished.json"
_WEIGHTS = ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True, slots=True)
class Run:
    """A finished training run, or an evaluation.

    Attributes:
        folder: Its folder.
        name: Name in the table, unique.
        group: Name of its arm in a sweep; "" outside of one.
        seed: Its seed, or None.
        settings: Values of the recipe by dotted key.
        values: Names of the values of swept keys.
        start: Evaluations before training, by evaluator.
        end: Last evaluations, by evaluator; those without figures say why.
        cost: Realised eta, tokens, steps and seconds.
    """

    folder: Path
    name: str
    group: str
    seed: int | None
    settings: Mapping[str, Any]
    values: Mapping[str, str]
    start: Mapping[str, Row]
    end: Mapping[str, Row]
    cost: Cost


@dataclass(slots=True)
class Runs:
    """Runs in the order of the table.

    Attributes:
        runs: Those with results.
        without: Runs without results, and why.
        keys: Swept keys of the sweeps among them, in order.
    """

    runs: list[Run] = field(default_factory=list)
    without: dict[str, str] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)


def read_runs(places: Sequence[Path]) -> Runs:
    """Read runs from folders.

    Args:
        places: Folders of training runs or evaluations, of sweeps, or with such folders in them.

    Raises:
        SourceNotFoundError: A folder is missing or holds no run.
        ConfigError: No run has results; names each with the reason.
        DataError: A file is damaged.
    """
    found = Runs()
    for place in dict.fromkeys(places):
        if not place.is_dir():
            raise SourceNotFoundError(f"{place}: no such folder")
        prefix = f"{place.resolve().name}/" if len(places) > 1 else ""
        if (place / SWEEP_FILE).is_file():
            _add_sweep(found, place, prefix)
        elif _is_run(place):
            _add(found, place, place.resolve().name)
        else:
            inside = [folder for folder in sorted(place.iterdir()) if _is_run(folder)]
            if not inside:
                raise SourceNotFoundError(
                    f"{place}: found no run, expected {RECORDS_FILE}, {SWEEP_FILE} or folders "
                    "with them"
                )
            for folder in inside:
                _add(found, folder, prefix + folder.name)
    if not found.runs:
        listed = "; ".join(f"{name}: {why}" for name, why in found.without.items())
        raise ConfigError(f"found no run with results ({listed})")
    return found


def _add_sweep(found: Runs, place: Path, prefix: str) -> None:
    sweep = json_object(place / SWEEP_FILE)
    arms = sweep.get("arms")
    if not isinstance(arms, list) or not all(isinstance(a, dict) and "name" in a for a in arms):
        raise DataError(f"{place / SWEEP_FILE}: arms: expected a list of arms with names")
    found.keys += [key for key in sweep.get("keys") or () if key not in found.keys]
    base: dict[str, Row] = {}
    if (place / BASE / RECORDS_FILE).is_file():
        base = _last(read_evaluations(place / BASE))
    for arm in arms:
        folder, name = place / str(arm["name"]), prefix + str(arm["name"])
        if not (folder / _FINISHED).is_file():
            begun = f"not finished{_reached(folder)}" if _is_run(folder) else "not started"
            found.without[name] = begun
            continue
        group = prefix + str(arm.get("group") or arm["name"])
        values = {str(key): str(value) for key, value in (arm.get("values") or {}).items()}
        _add(found, folder, name, group, values, arm.get("seed"), base)


def _add(
    found: Runs,
    folder: Path,
    name: str,
    group: str = "",
    values: Mapping[str, str] | None = None,
    seed: int | None = None,
    base: Mapping[str, Row] | None = None,
) -> None:
    """Add the run of a folder, or why it has no results."""
    taken = {run.name for run in found.runs} | set(found.without)
    if name in taken:
        name = str(folder)
    settings, trained_seed = read_settings(folder)
    trained = bool(settings) or (folder / MANIFEST_FILE).is_file()
    if trained and not group and not _has_ended(folder):
        found.without[name] = f"not finished{_reached(folder)}"
        return
    rows = read_evaluations(folder) if (folder / RECORDS_FILE).is_file() else []
    start = {**(base or {}), **_last(row for row in rows if row["step"] == 0)}
    end = _last(row for row in rows if row["step"] > 0 or not trained)
    if not end:
        found.without[name] = "no evaluation after training" if rows else "no evaluation"
        return
    run = Run(
        folder, name, group, trained_seed if seed is None else seed, settings, values or {},
        start if trained else {}, end, read_cost(folder, rows),
    )  # fmt: skip
    found.runs.append(run)


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (RECORDS_FILE, MANIFEST_FILE, MODEL_RECORD))


def _has_ended(folder: Path) -> bool:
    """Whether training has ended; older runs do not record it, but have weights then."""
    record = read_model_record(folder)
    return "training" in record or any((folder / name).is_file() for name in _WEIGHTS)


def _reached(folder: Path) -> str:
    """Return how far an unfinished run came, as part of a sentence."""
    if not (folder / RECORDS_FILE).is_file():
        return ""
    steps = [row["step"] for row in read_evaluations(folder)]
    return f": last evaluation at step {max(steps)}" if steps else ""


def _last(rows: Iterator[Row] | Sequence[Row]) -> dict[str, Row]:
    return {row["evaluator"]: row for row in rows}
