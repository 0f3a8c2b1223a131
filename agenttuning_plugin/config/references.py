"""Environments of one's own in a recipe: files are relative to the recipe's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataset_builders.environments.references import is_relative_file, resolve

_KEYS = ("environment", "name")


def resolve_environments(cfg: Mapping[str, Any], folder: Path) -> None:
    """Make relative paths of environments' files absolute, such as `./support.py:Support`.

    A file that is not in the recipe's folder is looked for in the working folder: Axolotl's
    `--sweep` writes its recipes to a temporary folder.

    Args:
        cfg: A recipe, which need not be valid; its evaluators are changed in place.
        folder: Folder of its file.
    """
    section = cfg.get("agenttuning")
    evaluators = section.get("evaluators") if isinstance(section, Mapping) else None
    for evaluator in evaluators if isinstance(evaluators, list) else ():
        for key in _KEYS if isinstance(evaluator, dict) else ():
            value = evaluator.get(key)
            if isinstance(value, str) and is_relative_file(value):
                here, there = resolve(value), resolve(value, folder)
                evaluator[key] = here if _is_there(here) and not _is_there(there) else there


def _is_there(place: str) -> bool:
    return Path(place.rpartition(":")[0]).is_file()
