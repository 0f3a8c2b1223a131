"""Layout of a collection's folder, and check for foreign data in it."""

from __future__ import annotations

from pathlib import Path

from dataset_builders.environments import HELD_IN, load_environment
from dataset_builders.errors import ConfigError

STATE = "collection"
"""Subfolder of a collection with its databases and reports."""


def state_path(out: Path, environment: str) -> Path:
    """Return the database of an environment's collection."""
    return out / STATE / f"{environment}.sqlite"


def table_path(out: Path, task: str) -> Path:
    """Return the training file of an AgentInstruct task, such as "db"."""
    return out / "data" / f"{task}-00000-of-00001.parquet"


def card_path(out: Path, task: str) -> Path:
    """Return the card file of a task."""
    return out / "card" / f"{task}.json"


def check_folder(out: Path, *, as_messages: bool = False) -> None:
    """Check for data that were not collected: a reader of the folder would mix them in.

    Args:
        out: Folder of the collection.
        as_messages: Whether rows in the `messages` format will be collected into it, as of
            dialogues with tools; a folder is read in one format.

    Raises:
        ConfigError: There are such data, or data of the other format; names the first file.
    """
    own = {table_path(out, task) for task in _tasks(out)}
    for path in sorted((out / "data").rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(out).parts)
        if path.is_file() and not hidden and path not in own:
            raise ConfigError(
                f"{path}: found a file that was not collected into {out}, which would be read "
                "as training data with the rest; move it, or name another `out`"
            )
    for path in sorted(own):
        if path.is_file() and _has_messages(path) != as_messages:
            kinds = ("AgentInstruct's format", "`messages`, as of tools and own environments")
            found, expected = kinds if as_messages else reversed(kinds)
            raise ConfigError(
                f"{path}: found dialogues with rows in {found}, expected {expected}; name another "
                "`out`"
            )


def _has_messages(path: Path) -> bool:
    import pyarrow.parquet as pq

    return "messages" in pq.read_schema(path).names


def _tasks(out: Path) -> set[str]:
    # The database counts, too: a process killed between table and card leaves no card.
    states = {path.stem for path in (out / STATE).glob("*.sqlite")}
    held_in = {name: load_environment(name).task for name in HELD_IN}
    found = {path.stem for path in (out / "card").glob("*.json")}
    # An own environment's task is its name.
    return found | {held_in.get(name, name) for name in states}
