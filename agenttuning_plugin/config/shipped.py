"""The recipes that ship with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from agenttuning_plugin.config.references import resolve_references
from dataset_builders.errors import ConfigError, SourceNotFoundError


def recipe_folder() -> Path:
    """Return the folder of the shipped recipes.

    A checkout takes precedence: an editable installation has a copy from install time, which edits
    do not update.
    """
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "recipes"
    return checkout if (checkout / "demo.yaml").is_file() else package / "recipes"


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes, as for `recipe copy`."""
    return sorted(path.name for path in recipe_folder().iterdir() if _is_recipe(path))


def shipped_recipe(name: str) -> Path:
    """Return the path of a shipped recipe; the suffix is optional.

    Raises:
        ConfigError: There is no such recipe; lists the available ones.
    """
    for path in (recipe_folder() / name, recipe_folder() / f"{name}.yaml"):
        if _is_recipe(path) and path.parent == recipe_folder():
            return path
    raise ConfigError(f"recipe: found {name!r}, expected one of {', '.join(recipe_names())}")


def headline(path: Path) -> str:
    """Return the first line of a recipe's opening comment or docstring."""
    first = path.read_text("utf-8").split("\n", 1)[0]
    return first.strip().strip('#"').strip()


def read_recipe(path: Path) -> dict[str, Any]:
    """Read a recipe's YAML; environments' files in it are relative to its folder.

    Raises:
        SourceNotFoundError: There is no such file.
        ConfigError: It is not YAML, or not a mapping at the top level.
    """
    try:
        loaded = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"{path}: no such recipe") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise ConfigError(f"{path}{line}: {problem}") from error
    if not isinstance(loaded, dict):
        kind = "nothing" if loaded is None else type(loaded).__name__
        raise ConfigError(f"{path}: found {kind}, expected keys and values")
    resolve_references(loaded, path.parent)
    return loaded


def _is_recipe(path: Path) -> bool:
    return path.suffix in {".yaml", ".py"} and path.is_file()
