"""Catalogue with its index and its goals, loaded once per process."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dataset_builders.environments.data import find_data
from dataset_builders.environments.webshop.catalogue import read_products
from dataset_builders.environments.webshop.goals import Goal, make_goals
from dataset_builders.environments.webshop.index import ProductIndex, build_index, digest
from dataset_builders.errors import DataError, SourceNotFoundError
from dataset_builders.storage import cache_folder

_LAYOUTS = (
    ("items_shuffle.json", "items_ins_v2.json"),
    ("items_shuffle_1000.json", "items_ins_v2_1000.json"),
    ("products_1k.jsonl.xz", "items_ins_v2_1000.json"),
)
_INSTRUCTIONS = "items_human_ins.json"
_WHAT = "WebShop's catalogue (its setup.sh downloads items_shuffle_1000.json and the rest)"

_TEST = range(200)
_DEV = range(200, 280)
_FIRST_TRAINING = 1500
"""WebShop reserves goals 0 to 499 for testing and 500 to 1499 for development."""


@dataclass(frozen=True, slots=True)
class Shop:
    """A catalogue with its goals.

    Attributes:
        index: Its products.
        goals: All goals, in WebShop's order.
        splits: Indices of goals by split; see `split_goals`.
    """

    index: ProductIndex
    goals: tuple[Goal, ...]
    splits: Mapping[str, tuple[int, ...]]


def split_goals(goals: tuple[Goal, ...]) -> dict[str, tuple[int, ...]]:
    """Return the indices of goals by split.

    "test" and "dev" are AgentBench's standard and development sets, goals 0 to 199 and
    200 to 279. "train" is WebShop's, goals from 1500 on, without those for a product, or
    with a wish, of a test or dev goal: synthetic goals for one product differ in an
    option only, and products alike share their wishes.
    """
    splits = {"test": tuple(_TEST)[: len(goals)], "dev": tuple(_DEV)[: max(0, len(goals) - 200)]}
    evaluated = [goals[index] for split in splits.values() for index in split]
    asins, wishes = {goal.asin for goal in evaluated}, {goal.wish for goal in evaluated}
    numbered = enumerate(goals[_FIRST_TRAINING:], _FIRST_TRAINING)
    train = tuple(i for i, goal in numbered if goal.asin not in asins and goal.wish not in wishes)
    return {"train": train, **splits}


def find_files(name: str, data: str | Path | None, names: tuple[str, ...]) -> tuple[Path, ...]:
    """Find the files of products, attributes and, if any, human instructions.

    Raises:
        SourceNotFoundError: There is no catalogue; the message states what to put where.
    """
    missing: SourceNotFoundError | None = None
    for needs in _LAYOUTS:
        try:
            folder = find_data(name, data, names, needs, _WHAT)
        except SourceNotFoundError as error:
            # What WebShop's own small set lacks is easiest for a user to add.
            missing = error if missing is None or needs == _LAYOUTS[1] else missing
            continue
        files = tuple(folder / need for need in needs)
        human = folder / _INSTRUCTIONS
        return (*files, human) if human.is_file() else files
    raise missing or SourceNotFoundError(f"{name}: no catalogue")


_LOADING = threading.Lock()


def load_shop(files: tuple[Path, ...]) -> Shop:
    """Load a shop, building its index if it does not yet exist on this machine.

    Goals are human-written if the catalogue has them, else synthetic.

    Raises:
        DataError: A record of the catalogue is invalid.
        StorageError: The index cannot be written.
    """
    stamps = tuple(file.stat().st_mtime_ns for file in files)
    with _LOADING:
        return _load(files, stamps)


@lru_cache(maxsize=4)
def _load(files: tuple[Path, ...], stamps: tuple[int, ...]) -> Shop:
    del stamps
    place = cache_folder("webshop") / f"{digest(files)}.sqlite"
    if not place.is_file():
        build_index(read_products(*files), place)
    index = ProductIndex(place)
    goals = tuple(make_goals(index.wished(), human=len(files) > 2))
    if not goals:
        raise DataError(f"{files[-1]}: found no product with an instruction, expected some")
    return Shop(index, goals, split_goals(goals))
