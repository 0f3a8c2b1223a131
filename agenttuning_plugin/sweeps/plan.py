"""Arms of a sweep: every combination of values, with every seed, as a recipe of its own."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agenttuning_plugin.config.overrides import SECTION, apply_overrides, set_key
from agenttuning_plugin.config.recipe import AgentTuningSection
from agenttuning_plugin.config.rules import check_recipe
from agenttuning_plugin.config.sweep import BLOCK
from agenttuning_plugin.sweeps.definition import Definition, as_list, matches
from agenttuning_plugin.sweeps.values import Value, folder_name
from dataset_builders.errors import ConfigError

PREPARED = "prepared"
"""Folder of encoded sources, which all arms share."""

BASE = "base"
"""Folder with the evaluation of the base, step 0, which all arms share."""

_ONE_FOR_ALL = ("hub_model_id", "wandb_run_id")
# A tracker's project, and the name of a run in it.
_NAMES = {"wandb_project": "wandb_name", "mlflow_experiment_name": "mlflow_run_name"}
_SET_HERE = {"output_dir": "each arm has its own folder", "seed": "use the option or key `seeds`"}


@dataclass(frozen=True, slots=True)
class Arm:
    """One run of a sweep.

    Attributes:
        name: Name, and folder within the sweep's.
        folder: Output folder of the run.
        seed: Its seed.
        values: Name of the value of each swept key.
        group: Name of the arm without its seed.
        recipe: Its complete recipe.
        changed: Keys that differ from the recipe that is varied, as they were given.
    """

    name: str
    folder: Path
    seed: int
    values: Mapping[str, str]
    group: str
    recipe: Mapping[str, Any]
    changed: tuple[str, ...]


def plan_arms(recipe: Mapping[str, Any], definition: Definition, out: Path) -> list[Arm]:
    """Return the arms of a sweep in the order of their runs: seed after seed.

    A sweep that is interrupted so has whole comparisons of its first seeds.

    Args:
        recipe: The recipe that is varied.
        definition: What is varied.
        out: Folder of the sweep.

    Raises:
        ConfigError: A key cannot be varied, or an arm's recipe is wrong; names the arm.
    """
    for key in (*definition.values, *(key for arm in definition.arms.values() for key in arm)):
        _check_key(key)
    groups = list(_groups(definition))
    names = [name for name, _, _ in groups]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"sweep: found two arms {sorted(repeated)[0]}, expected one of a name")
    return [
        _arm(recipe, name, changes, seed, out, values)
        for seed in definition.seeds
        for name, values, changes in groups
    ]


def _groups(definition: Definition) -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
    """Yield name, names of values and changed keys of the arms, without seeds."""
    short = _short_names(list(definition.values))
    product = itertools.product(*definition.values.values()) if definition.values else ()
    for combination in product:
        chosen: dict[str, Value] = dict(zip(definition.values, combination, strict=True))
        if not any(_skipped(chosen, entry) for entry in definition.skip):
            name = "_".join(f"{short[key]}-{folder_name(v.name)}" for key, v in chosen.items())
            names = {key: value.name for key, value in chosen.items()}
            yield name, names, {key: value.value for key, value in chosen.items()}
    if not definition.values and not definition.arms:
        yield "", {}, {}
    for name, changes in definition.arms.items():
        yield name, {}, dict(changes)


def _skipped(chosen: Mapping[str, Value], entry: Mapping[str, Any]) -> bool:
    return all(
        any(matches(chosen[key], each) for each in as_list(wanted)) for key, wanted in entry.items()
    )


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the last part of each key, or all of it where two end alike."""
    last = [key.rpartition(".")[2] for key in keys]
    return {
        key: folder_name(key if last.count(name) > 1 else name)
        for key, name in zip(keys, last, strict=True)
    }


def _check_key(key: str) -> None:
    if key in _SET_HERE:
        raise ConfigError(f"{key}: cannot be swept: {_SET_HERE[key]}")
    if key in AgentTuningSection.model_fields:
        raise ConfigError(f"{key}: unknown key, did you mean {SECTION}.{key}?")


def _arm(
    recipe: Mapping[str, Any],
    group: str,
    changes: Mapping[str, Any],
    seed: int,
    out: Path,
    values: Mapping[str, str],
) -> Arm:
    name = f"{group}_seed-{seed}".lstrip("_")
    made = copy.deepcopy({key: value for key, value in recipe.items() if key != BLOCK})
    made.setdefault("dataset_prepared_path", str(out / PREPARED))
    try:
        for key, value in changes.items():
            set_key(made, key, copy.deepcopy(value))
        made |= {"output_dir": str(out / name), "seed": seed}
        _share_base(made, out)
        _separate(made, name, changes)
        checked = copy.deepcopy(made)
        apply_overrides(checked)
        check_recipe(checked)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    return Arm(name, out / name, seed, dict(values), group, made, tuple(changes))


def _share_base(recipe: dict[str, Any], out: Path) -> None:
    """Let the arms share their evaluation at step 0, unless the recipe says where."""
    section = recipe.get(SECTION)
    if isinstance(section, dict) and section.get("evaluators"):
        given = section.get("evaluation") or {}
        if isinstance(given, dict):  # Another type is an error of the recipe, found later.
            section["evaluation"] = {"shared_base": str(out / BASE), **given}


def _separate(recipe: dict[str, Any], name: str, changes: Mapping[str, Any]) -> None:
    """Give each arm its own name in trackers, and refuse what all arms would overwrite.

    Raises:
        ConfigError: There is such a key.
    """
    for key in _ONE_FOR_ALL:
        if recipe.get(key) and key not in changes:
            raise ConfigError(
                f"{key}: found {recipe[key]!r}, expected nothing: the arms would overwrite each "
                "other there"
            )
    for project, key in _NAMES.items():
        if recipe.get(project) and key not in changes:
            recipe[key] = name
