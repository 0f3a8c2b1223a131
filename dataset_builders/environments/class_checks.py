"""Check environments that are not part of this package: their class, name, tasks and splits."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from inspect import isclass
from typing import TYPE_CHECKING, Any

from dataset_builders.environments.own_code import guarded
from dataset_builders.errors import AgentTuningError, ConfigError, DataError

if TYPE_CHECKING:
    from dataset_builders.environments.base import TextEnvironment

RESERVED = frozenset(
    {
        *("alfworld", "webshop", "mind2web", "knowledge_graph", "os", "database"),
        *("science_world", "miniwob", "web_arena", "hotpot_qa", "rewoo", "card_game"),
        *("mmlu", "human_eval", "gsm8k", "mt_bench"),
        *("db", "kg", "general", "loss", "replay", "refusal", "all"),
    }
)
"""Names of the paper's tasks, of AgentInstruct's and of other figures: taken."""

SPLITS = ("train", "dev", "test")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def check_dialogue(place: str, found: Any) -> None:
    """Check that a class is a complete dialogue.

    Raises:
        ConfigError: It is something else, lacks a member, or its name is taken.
    """
    from dataset_builders.environments.base import TextEnvironment
    from dataset_builders.environments.dialogue import Dialogue

    if not isclass(found) or not issubclass(found, Dialogue):
        hint = ""
        if isclass(found) and issubclass(found, TextEnvironment):
            hint = "; a world: name the Dialogue class that has it as `world`"
        what = f"class {found.__name__}" if isclass(found) else type(found).__name__
        raise ConfigError(
            f"{place}: found {what}, expected a subclass of ToolEnvironment or Dialogue{hint}"
        )
    world = getattr(found, "world", None)
    if not isclass(world) or not issubclass(world, TextEnvironment):
        raise ConfigError(
            f"{place}: world: found {world!r}, expected a subclass of TextEnvironment"
        )
    lacking = [name for name in ("round_limit",) if not hasattr(found, name)]
    lacking += [name for name in ("name", "idle_action") if not hasattr(world, name)]
    for owner, names in ((found, ("read", "write")), (world, ("task_ids", "_begin", "_act"))):
        lacking += [
            name for name in names if getattr(getattr(owner, name), "__isabstractmethod__", False)
        ]
    if lacking:
        raise ConfigError(f"{place}: lacks {', '.join(lacking)}")
    check_name(place, world.name)


def check_name(place: str, name: object) -> None:
    """Check an environment's name.

    Raises:
        ConfigError: It is no identifier, or is the name of one of the paper's tasks.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{place}: name: found {name!r}, expected letters, digits and _ (task ids are "
            "<name>-<split>-<rest>)"
        )
    if name in RESERVED:
        raise ConfigError(f"{place}: name: found {name!r}, which is taken; choose another")


def checked_ids(place: str, beginning: str, ids: Any) -> tuple[str, ...]:
    """Check the task ids of a split.

    Args:
        place: The reference, for errors.
        beginning: How each begins: "<name>-<split>-".
        ids: What the environment returned.

    Raises:
        DataError: It is no sequence of texts that begin so, or an id repeats.
    """
    where = f"{place}: task_ids"
    if isinstance(ids, str) or not isinstance(ids, Sequence):
        raise DataError(f"{where}: found {type(ids).__name__}, expected a sequence of texts")
    for each in ids:
        if not isinstance(each, str) or not each.startswith(beginning):
            raise DataError(f"{where}: found {each!r:.60}, expected text, {beginning}<rest>")
    repeated = [each for each, number in Counter(ids).items() if number > 1]
    if repeated:
        raise DataError(f"{where}: {repeated[0]!r} is there twice, expected ids to be unique")
    return tuple(ids)


def check_splits(
    place: str, world: TextEnvironment, task_ids: Callable[[str], Sequence[str]]
) -> None:
    """Check the tasks of all splits: their form, and that no two splits share one.

    Args:
        place: The reference, for errors.
        world: Its world, whose `task_keys` are compared.
        task_ids: Returns the ids of a split; raises if there is none.

    Raises:
        DataError: Ids are wrong or repeated, or two splits share a task.
        ConfigError: The environment's code raised, other than a KeyError for a split.
    """
    seen: dict[str, str] = {}
    for split in SPLITS:
        try:
            ids = task_ids(split)
        except DataError:
            raise
        except AgentTuningError as error:
            if error.__cause__ is None or isinstance(error.__cause__, KeyError):
                continue  # There is no such split.
            raise
        keys = guarded(place, "task_keys", partial(_keys_of, world, ids))
        for task_id, key in keys:
            other = seen.setdefault(key, task_id)
            if other.split("-")[1] != split:
                raise DataError(
                    f"{place}: {other} and {task_id} are one task by their {key:.60}, "
                    "expected no task in two splits"
                )


def _keys_of(world: TextEnvironment, ids: Sequence[str]) -> list[tuple[str, str]]:
    return [(task_id, key) for task_id in ids for key in world.task_keys(task_id)]
