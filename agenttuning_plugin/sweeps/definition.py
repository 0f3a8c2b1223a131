"""What a sweep varies: the block `sweep:` of a recipe, and the options of the command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from agenttuning_plugin.config.sweep import block_of
from agenttuning_plugin.sweeps.values import Value, folder_name, parse_setting, values_of
from dataset_builders.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Definition:
    """What a sweep varies.

    Attributes:
        values: Values of each swept key, in order.
        seeds: Seeds of each arm.
        skip: Combinations to leave out.
        arms: Further arms by name, each with the keys that it changes.
    """

    values: Mapping[str, Sequence[Value]]
    seeds: Sequence[int]
    skip: Sequence[Mapping[str, Any]]
    arms: Mapping[str, Mapping[str, Any]]


def read_definition(
    recipe: Mapping[str, Any], settings: Sequence[str] = (), seeds: str | None = None
) -> Definition:
    """Combine the recipe's block with the options; an option replaces the key of the block.

    Args:
        recipe: The recipe, with or without the block.
        settings: `KEY=VALUE,VALUE` each.
        seeds: A number of seeds, or seeds separated by commas.

    Raises:
        ConfigError: An entry is wrong, or nothing is varied; names it.
    """
    block = block_of(recipe)
    values = {key: values_of(key, given) for key, given in block.set.items()}
    given = [parse_setting(text) for text in settings]
    for key, found in given:
        if [name for name, _ in given].count(key) > 1:
            raise ConfigError(f"`set`: found {key} twice, expected all its values in one option")
        values[key] = found
    for name in block.arms:
        if folder_name(name) != name:
            raise ConfigError(f"sweep.arms: found the name {name!r}, expected letters, digits, . _")
    chosen = _seeds(recipe, block.seeds if seeds is None else _parse_seeds(seeds))
    if not values and not block.arms and len(chosen) < 2:
        raise ConfigError("nothing is varied: expected `set`, `seeds`, or a block `sweep:`")
    replaced = {key for key, _ in given}
    _check_skip(block.skip, values, replaced)
    return Definition(values, chosen, block.skip, block.arms)


def _parse_seeds(text: str) -> int | list[int]:
    try:
        if "," in text:
            return [int(part) for part in text.split(",") if part.strip()]
        return int(text)
    except ValueError:
        raise ConfigError(
            f"`seeds`: found {text!r}, expected a number, or seeds such as 1,2,3"
        ) from None


def _seeds(recipe: Mapping[str, Any], given: int | list[int]) -> list[int]:
    first = recipe.get("seed")
    start = first if isinstance(first, int) else 42  # The trainer's default.
    seeds = given if isinstance(given, list) else list(range(start, start + given))
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"`seeds`: found {given}, expected at least one, each once")
    return seeds


def _check_skip(
    skip: Sequence[Mapping[str, Any]], values: Mapping[str, Sequence[Value]], replaced: Set[str]
) -> None:
    """Check the entries of `skip`, but not values of keys that an option has replaced."""
    for number, entry in enumerate(skip):
        for key, wanted in entry.items():
            if key not in values:
                raise ConfigError(f"sweep.skip.{number}: {key} is not swept")
            for each in () if key in replaced else as_list(wanted):
                if not any(matches(value, each) for value in values[key]):
                    names = ", ".join(value.name for value in values[key])
                    raise ConfigError(
                        f"sweep.skip.{number}.{key}: found {each!r}, expected of {names}"
                    )


def matches(value: Value, wanted: Any) -> bool:
    """Whether an entry of `skip` means a value: itself or its name."""
    return value.value == wanted or value.name == str(wanted)


def as_list(given: Any) -> list[Any]:
    """Return a list as it is, and any other value as a list of one."""
    return given if isinstance(given, list) else [given]
