"""Code of a user's own in a recipe: its files are relative to the recipe's folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dataset_builders.environments.references import is_relative_file, resolve

_KEYS: dict[str, tuple[str, ...]] = {
    "evaluators": ("environment", "name"),
    "agent": ("train_on",),
    "general": ("train_on",),
    "endpoint": ("suites",),
}
"""Keys whose value may be a reference or a list of them, in the entries of a section's key."""


def resolve_references(cfg: Mapping[str, Any], folder: Path) -> None:
    """Make relative paths absolute: of environments (`./support.py:Support`) and turn selectors.

    A file that is not in the recipe's folder is looked for in the working folder: Axolotl's
    `--sweep` writes its recipes to a temporary folder.

    Args:
        cfg: A recipe, which need not be valid; its entries are changed in place.
        folder: Folder of its file.
    """
    section = cfg.get("agenttuning")
    for entry, key in _entries(section) if isinstance(section, Mapping) else ():
        value = entry.get(key)
        if isinstance(value, list):
            entry[key] = [_absolute(each, folder) for each in value]
        elif value is not None:
            entry[key] = _absolute(value, folder)


def _absolute(value: Any, folder: Path) -> Any:
    if not isinstance(value, str) or not is_relative_file(value):
        return value
    here, there = resolve(value), resolve(value, folder)
    return here if _is_there(here) and not _is_there(there) else there


def _entries(section: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for name, keys in _KEYS.items():
        given = section.get(name)
        entries: list[Any] = given if isinstance(given, list) else [given]
        for entry in entries:
            if isinstance(entry, dict):
                yield from ((entry, key) for key in keys)
                if isinstance(recover := entry.get("recover"), dict):
                    yield recover, "environment"


def _is_there(place: str) -> bool:
    return Path(place.rpartition(":")[0]).is_file()
