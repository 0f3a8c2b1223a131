"""ALFWorld's games on disk, and their division into training and test splits."""

from __future__ import annotations

import json
import lzma
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from dataset_builders.environments.data import find_data, setup_hint
from dataset_builders.errors import ConfigError, DataError, SourceNotFoundError
from dataset_builders.storage import DATA_VARIABLE

NAME = "alfworld"
DATA_NAMES = ("alfworld",)
ALFWORLD_DATA = "ALFWORLD_DATA"
"""ALFWorld's own environment variable for its folder."""

SPLITS = ("train", "dev", "test")
TRAIN_FOLDERS = ("train", "valid_train")

_ROOT = "json_2.1.1"
_GAME = "game.tw-pddl"
_PACKED = "games.jsonl.xz"
_DOMAIN = "alfred.pddl"
_LISTS = {
    "dev": ("agentbench_dev.json", "dev.json"),
    "test": ("agentbench_standard.json", "standard.json", "std.json"),
}
_WHAT = (
    f"packed games ({_PACKED}, {_DOMAIN}) or ALFWorld's own folder {_ROOT}, "
    "with AgentBench's lists of games (agentbench_standard.json, agentbench_dev.json)"
)
_UNSOLVABLE = re.compile(rb'"solvable":\s*false')


@dataclass(frozen=True, slots=True)
class Game:
    """A game.

    Attributes:
        key: Name that is independent of its location: its task and its trial.
        domain: PDDL domain that all games share.
        grammar: Its text grammar, with the old "put X in/on Y".
        problem: PDDL of its room and its goal.
    """

    key: str
    domain: str
    grammar: str
    problem: str

    @property
    def kind(self) -> str:
        """One of ALFWorld's six task types, such as "pick_two_obj_and_place"."""
        return self.key.partition("-")[0]


class Games(ABC):
    """A folder of games."""

    folder: Path

    @abstractmethod
    def paths(self) -> tuple[str, ...]:
        """Return the paths of all solvable games, as AgentBench writes them, sorted."""

    @abstractmethod
    def read(self, path: str) -> Game:
        """Read a game; a damaged one is a DataError."""


class PackedGames(Games):
    """Games in one compressed JSON lines file, and their common domain."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._domain = (folder / _DOMAIN).read_text("utf-8")
        self._rows = dict(_unpack(folder / _PACKED))

    def paths(self) -> tuple[str, ...]:
        """See `Games`; a packed file holds only solvable games."""
        return tuple(sorted(self._rows))

    def read(self, path: str) -> Game:
        """See `Games`."""
        grammar, problem = self._rows[path]
        return Game(game_key(path), self._domain, grammar, problem)


class UnpackedGames(Games):
    """Games in ALFWorld's own layout: one folder per game."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._paths: tuple[str, ...] | None = None

    def paths(self) -> tuple[str, ...]:
        """See `Games`; ALFWorld's rule: none with slices or movable receptacles."""
        if self._paths is None:
            files = sorted((self.folder / _ROOT).rglob(_GAME))
            self._paths = tuple(
                str(file.relative_to(self.folder).as_posix())
                for file in files
                if "movable" not in str(file)
                and "Sliced" not in str(file)
                and not _UNSOLVABLE.search(file.read_bytes())
            )
        return self._paths

    def read(self, path: str) -> Game:
        """See `Games`."""
        file = self.folder / path
        row = _parse(file.read_text("utf-8"), str(file))
        texts = [_text(row, name, str(file)) for name in ("pddl_domain", "grammar", "pddl_problem")]
        return Game(game_key(path), *texts)


def open_games(data: str | Path | None) -> Games:
    """Open a collection of games.

    Args:
        data: Their folder, or None to search the data folders and then `$ALFWORLD_DATA`.

    Raises:
        SourceNotFoundError: There are none; the message states what to put where.
        DataError: A file is invalid.
    """
    own = os.environ.get(ALFWORLD_DATA)
    if data is None and own and DATA_VARIABLE not in os.environ:
        data = own
    try:
        folder = find_data(NAME, data, DATA_NAMES, (_PACKED, _DOMAIN), _WHAT)
    except SourceNotFoundError as error:
        try:
            return _unpacked(find_data(NAME, data, DATA_NAMES, (_ROOT,), _WHAT))
        except SourceNotFoundError:
            raise error from None
    return _packed(folder)


@lru_cache(maxsize=2)
def _packed(folder: Path) -> PackedGames:
    return PackedGames(folder)


@lru_cache(maxsize=2)
def _unpacked(folder: Path) -> UnpackedGames:
    return UnpackedGames(folder)


def split_paths(games: Games, split: str) -> tuple[str, ...]:
    """Return the games of a split: AgentBench's lists, or the training folder.

    Raises:
        ConfigError: The split is unknown.
        SourceNotFoundError: The list, the training folder or a listed game is missing.
        DataError: A list is damaged, or a listed game is in the training folder.
    """
    if split not in SPLITS:
        raise ConfigError(f"split {split!r} is unknown; known: {', '.join(SPLITS)}")
    if split == "train":
        return _train_paths(games)
    listed = _listed(games, split)
    known = set(games.paths())
    if absent := [path for path in listed if path not in known]:
        raise SourceNotFoundError(
            f"{NAME}: {len(absent)} of {len(listed)} games of {split!r} are not in "
            f"{games.folder}, the first is {absent[0]}"
        )
    return listed


def game_key(path: str) -> str:
    """Return the name of a game: the last two folders of its path, its task and its trial."""
    return "-".join(path.split("/")[-3:-1])


def _train_paths(games: Games) -> tuple[str, ...]:
    for folder in TRAIN_FOLDERS:
        paths = tuple(p for p in games.paths() if p.startswith(f"{_ROOT}/{folder}/"))
        if paths:
            break
    else:
        folders = " or ".join(f"{_ROOT}/{folder}" for folder in TRAIN_FOLDERS)
        raise SourceNotFoundError(
            f"{NAME}: no training games in {games.folder}: put {folders} there"
        )
    tested = {game_key(p) for split in _LISTS for p in _listed(games, split, needed=False)}
    if shared := sorted(tested & {game_key(path) for path in paths}):
        raise DataError(
            f"{games.folder}: {len(shared)} training games are evaluated by AgentBench, "
            f"the first is {shared[0]}"
        )
    return paths


def _listed(games: Games, split: str, *, needed: bool = True) -> tuple[str, ...]:
    file = next((games.folder / n for n in _LISTS[split] if (games.folder / n).exists()), None)
    if file is None:
        if needed:
            names = " or ".join(_LISTS[split])
            raise SourceNotFoundError(
                f"{NAME}: no {names} in {games.folder}: put AgentBench's list of games there"
                f"{setup_hint(NAME)}"
            )
        return ()
    kinds = _parse(file.read_text("utf-8"), str(file))
    paths = [path for paths in kinds.values() for path in paths]
    if not paths or not all(isinstance(path, str) for path in paths):
        raise DataError(f"{file}: found {paths[:1]!r}, expected lists of paths by kind of task")
    return tuple(paths)


def _unpack(file: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    try:
        with lzma.open(file, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                where = f"{file}: line {number}"
                row = _parse(line, where)
                names = ("gamefile", "grammar", "pddl_problem")
                path, grammar, problem = (_text(row, name, where) for name in names)
                yield path, (grammar, problem)
    except (lzma.LZMAError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: found {error}, expected xz-compressed JSON lines") from error


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}: found no JSON ({error}), expected an object") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: found {type(row).__name__}, expected an object")
    return row


def _text(row: dict[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value:
        raise DataError(f"{where}: {name}: found {value!r:.60}, expected text")
    return value
