"""The recipes that ship with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dataset_builders.errors import ConfigError, SourceNotFoundError


def recipe_folder() -> Path:
    """Folder of the shipped recipes.

    The checkout comes first: an editable installation holds a copy made when it was
    installed, which edits do not reach.
    """
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "recipes"
    return checkout if (checkout / "demo.yaml").is_file() else package / "recipes"


def recipe_names() -> list[str]:
    """Names of the shipped recipes, as `recipe copy` takes them."""
    return sorted(path.name for path in recipe_folder().iterdir() if _is_recipe(path))


def shipped_recipe(name: str) -> Path:
    """Path of a shipped recipe; the ending may be left out.

    Raises:
        ConfigError: There is no such recipe; lists those there are.
    """
    for path in (recipe_folder() / name, recipe_folder() / f"{name}.yaml"):
        if _is_recipe(path) and path.parent == recipe_folder():
            return path
    raise ConfigError(f"recipe: found {name!r}, expected one of {', '.join(recipe_names())}")


def headline(path: Path) -> str:
    """First line of a recipe's opening comment or docstring."""
    first = path.read_text("utf-8").split("\n", 1)[0]
    return first.strip().strip('#"').strip()


def read_recipe(path: Path) -> dict[str, Any]:
    """Read a recipe's YAML.

    Raises:
        SourceNotFoundError: There is no such file.
        ConfigError: It is not YAML, or not an object at the top.
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
        raise ConfigError(f"{path}: found {type(loaded).__name__}, expected keys and values")
    return loaded


def _is_recipe(path: Path) -> bool:
    return path.suffix in {".yaml", ".py"} and path.is_file()
