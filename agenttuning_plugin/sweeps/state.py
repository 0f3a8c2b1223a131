"""State of a sweep on disk: recipes, markers of finished arms, locks and `sweep.json`.

An arm is finished when its folder holds `finished.json`, which is written last. Whoever runs an
arm holds its lock, so that several processes can work on one sweep.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from agenttuning_plugin.reports.model_record import json_object
from agenttuning_plugin.sweeps.plan import Arm
from dataset_builders.errors import ConfigError
from dataset_builders.storage import replace_text

SWEEP_FILE = "sweep.json"
RECIPE_FILE = "recipe.yaml"
FINISHED_FILE = "finished.json"
LOG_FILE = "train.log"
LOCKS = ".locks"
REPLACED = "replaced"
"""Folder of the sweep for unfinished arms that were started with another recipe."""

# Where an arm writes: the folder of a sweep can be moved.
_PLACES = ("output_dir", "dataset_prepared_path", "agenttuning.evaluation.shared_base")
_PACKAGES = ("agenttuning-plugin", "axolotl", "transformers", "trl", "peft", "torch")


def digest_of(recipe: Mapping[str, Any]) -> str:
    """Return a digest of a recipe, without the folders that it writes to."""
    return hashlib.sha256(json.dumps(_content(recipe), sort_keys=True).encode()).hexdigest()[:32]


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the keys in which two recipes differ, as dotted paths, with both values."""
    return list(_differences(_content(before), _content(after), ""))


def versions() -> dict[str, str]:
    """Return the versions of the installed packages that training depends on."""
    found: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def is_finished(folder: Path) -> bool:
    """Whether an arm is finished."""
    return (folder / FINISHED_FILE).is_file()


def read_marker(folder: Path) -> dict[str, Any]:
    """Return what an arm's marker states; nothing if it is damaged."""
    try:
        found = json.loads((folder / FINISHED_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_marker(folder: Path, seconds: float) -> None:
    """Mark an arm as finished: with its recipe, versions, and seconds of its last session."""
    recipe = read_arm_recipe(folder)
    marker = {
        "digest": digest_of(recipe),
        "versions": versions(),
        "seconds": round(seconds, 1),
        "recipe": recipe,
    }
    replace_text(folder / FINISHED_FILE, json.dumps(marker, ensure_ascii=False, indent=1) + "\n")


def read_arm_recipe(folder: Path) -> dict[str, Any]:
    """Return the recipe that an arm was started with.

    Raises:
        ConfigError: It is damaged.
    """
    path = folder / RECIPE_FILE
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: found no keys, expected the recipe of an arm")
    return found


@contextmanager
def locked(out: Path, name: str, seconds: float = 0) -> Iterator[bool]:
    """Hold a lock of the sweep; gives False if another process has it.

    Args:
        out: Folder of the sweep.
        name: Name of an arm, or "sweep" for the plan.
        seconds: How long to wait.
    """
    (out / LOCKS).mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / LOCKS / f"{name}.lock")
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def write_plan(out: Path, recipe: Path, arms: Sequence[Arm], keys: Mapping[str, list[str]]) -> None:
    """Write the arms' recipes and `sweep.json`.

    An unfinished arm that was started with another recipe is moved to `replaced/`.

    Args:
        out: Folder of the sweep.
        recipe: File of the recipe that is varied.
        arms: From `plan_arms`.
        keys: Names of the values of each swept key.

    Raises:
        ConfigError: A finished or running arm has another recipe; names the keys.
    """
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, "sweep", seconds=60) as held:
        if not held:
            raise ConfigError(f"{out}: another process has held {LOCKS}/sweep.lock for a minute")
        for arm in arms:
            check_finished(arm)
        for arm in arms:
            _write_recipe(out, arm)
        facts = {
            "version": 1,
            "recipe": str(recipe),
            "keys": keys,
            "seeds": sorted({arm.seed for arm in arms}),
            "arms": _listed(out, arms, recipe.stem),
        }
        replace_text(out / SWEEP_FILE, json.dumps(facts, ensure_ascii=False, indent=1) + "\n")


def check_finished(arm: Arm) -> None:
    """Check that an arm, if it is finished, was trained with this recipe.

    Raises:
        ConfigError: It was not; names the keys.
    """
    if not is_finished(arm.folder):
        return
    before = read_marker(arm.folder).get("recipe") or read_arm_recipe(arm.folder)
    if changed := differences(before, arm.recipe):
        raise ConfigError(
            f"{arm.folder}: finished with another recipe: {'; '.join(changed)}; choose another "
            "folder (`out`), or delete this arm's to train it again"
        )


def _write_recipe(out: Path, arm: Arm) -> None:
    place = arm.folder / RECIPE_FILE
    if place.is_file():
        if not (changed := differences(read_arm_recipe(arm.folder), arm.recipe)):
            return
        with locked(out, arm.name) as held:
            if not held:
                raise ConfigError(
                    f"{arm.folder}: another process trains it with another recipe: "
                    f"{'; '.join(changed)}"
                )
            _replace(out, arm)
    arm.folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(dict(arm.recipe), sort_keys=False, allow_unicode=True)
    replace_text(place, text)


def _replace(out: Path, arm: Arm) -> None:
    place, number = out / REPLACED, 1
    place.mkdir(exist_ok=True)
    while (kept := place / f"{arm.name}.{number}").exists():
        number += 1
    arm.folder.rename(kept)


def _listed(out: Path, arms: Sequence[Arm], default: str) -> list[dict[str, Any]]:
    """Return the arms as JSON: these, then those that only earlier commands named.

    Args:
        out: Folder of the sweep.
        arms: From `plan_arms`.
        default: Group of arms that differ in their seed only.
    """
    listed = [
        {
            "name": arm.name,
            "group": arm.group or default,
            "seed": arm.seed,
            "values": dict(arm.values),
        }
        for arm in arms
    ]
    names = {arm.name for arm in arms}
    return listed + [each for each in read_sweep(out).get("arms", []) if each["name"] not in names]


def read_sweep(out: Path) -> dict[str, Any]:
    """Return the content of `sweep.json`; nothing where there is none.

    Raises:
        DataError: It is damaged.
    """
    path = out / SWEEP_FILE
    return json_object(path) if path.is_file() else {}


def _content(recipe: Mapping[str, Any]) -> dict[str, Any]:
    # As YAML gives it back, so that a tuple or a date equals its copy on disk.
    kept = dict(json.loads(json.dumps(recipe, default=str)))
    for place in _PLACES:
        _remove(kept, place.split("."))
    return kept


def _remove(content: Any, path: Sequence[str]) -> None:
    """Remove a key by its path, and the mappings that are empty without it."""
    if isinstance(content, dict) and path[0] in content:
        if len(path) > 1:
            _remove(content[path[0]], path[1:])
        if len(path) == 1 or content[path[0]] == {}:
            del content[path[0]]


def _differences(before: Any, after: Any, place: str) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            inner = f"{place}.{key}".lstrip(".")
            yield from _differences(before.get(key), after.get(key), inner)
    elif before != after:
        yield f"{place} was {before!r}, is {after!r}"
