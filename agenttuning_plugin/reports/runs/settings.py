"""Settings of a run by dotted key, from the files in its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from agenttuning_plugin.config.overrides import SECTION
from agenttuning_plugin.config.recipe import AgentTuningSection
from agenttuning_plugin.reports.model_record import read_model_record
from dataset_builders.errors import DataError
from dataset_builders.manifest.store import MANIFEST_FILE

_PLACES = (
    "output_dir",
    "dataset_prepared_path",
    f"{SECTION}.evaluation.shared_base",
    "seed",
)
"""Keys that say where a run writes, or its seed: no settings to compare runs by."""


def read_settings(folder: Path) -> tuple[dict[str, Any], int | None]:
    """Return a run's settings by dotted key, lists as they are, and its seed.

    With Axolotl they are the recipe's, of the section all, with defaults. With TRL, those of the
    section and the batch. An evaluation has none.

    Args:
        folder: Output folder of the run.

    Raises:
        DataError: A file is damaged.
    """
    record = read_model_record(folder).get("recipe") or {}
    manifest = _manifest(folder)
    recipe: dict[str, Any] = {}
    if record.get("text"):
        try:
            loaded = yaml.safe_load(record["text"])
        except yaml.YAMLError as error:
            raise DataError(f"{folder}: the recorded recipe is not YAML: {error}") from error
        recipe = loaded if isinstance(loaded, dict) else {}
    elif batch := manifest.get("batch"):
        recipe = {f"batch.{name}": value for name, value in batch.items()}
    if "section" in record:
        recipe[SECTION] = _with_defaults(record["section"])
    seed = recipe.get("seed", (manifest.get("order") or {}).get("seed"))
    recipe.pop("sweep", None)
    settings = {key: value for key, value in _flat(recipe) if key not in _PLACES}
    return settings, seed if isinstance(seed, int) else None


def lookup(settings: Mapping[str, Any], key: str) -> Any:
    """Return the value of a key, or of the group of keys that begin with it; None without one."""
    if key in settings:
        return settings[key]
    inside = {k[len(key) + 1 :]: v for k, v in settings.items() if k.startswith(f"{key}.")}
    return inside or None


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / MANIFEST_FILE).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / MANIFEST_FILE}: cannot be read: {error}") from error
    return content if isinstance(content, dict) else {}


def _with_defaults(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded section with the defaults that it leaves out."""
    try:
        return AgentTuningSection.model_validate(section).model_dump(mode="json")
    except ValueError:  # written by another version, which knew other keys
        return dict(section)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value
