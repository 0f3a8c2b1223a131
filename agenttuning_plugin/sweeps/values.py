"""Values of a swept key: read from the command line or a recipe, each with a short name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from dataset_builders.errors import ConfigError

_NAMED = re.compile(r"\s*([\w.+-]+):\s*(?=[\[{])")
_OPEN, _CLOSE, _QUOTES = "[{", "]}", "\"'"


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a swept key.

    Attributes:
        name: Short name, for folders and tables.
        value: The value, as YAML has it.
    """

    name: str
    value: Any


def parse_setting(text: str) -> tuple[str, list[Value]]:
    """Parse `KEY=VALUE,VALUE`, where a value is YAML or `NAME:{...}`.

    Raises:
        ConfigError: There is no key or value, a value is not YAML, or a mapping has no name.
    """
    key, sign, rest = text.partition("=")
    key = key.strip()
    if not key or not sign or not rest.strip():
        raise ConfigError(f"`set`: found {text!r}, expected KEY=VALUE,VALUE")
    return key, _distinct(key, [_parse(key, part) for part in _split(rest)])


def values_of(key: str, given: Any) -> list[Value]:
    """Return the values of a key of a recipe's `sweep.set`.

    Args:
        key: The swept key.
        given: A list of values, or a mapping of names to values.

    Raises:
        ConfigError: There is no value, a mapping has no name, or two have one name.
    """
    if isinstance(given, Mapping):
        found = [Value(_checked(key, str(name)), value) for name, value in given.items()]
    else:
        found = [_unnamed(key, value) for value in (given if isinstance(given, list) else [given])]
    if not found:
        raise ConfigError(f"sweep.set.{key}: found no value, expected at least one")
    return _distinct(key, found)


def folder_name(text: str) -> str:
    """Return text as part of a folder's name."""
    return re.sub(r"[^\w.+-]+", "-", text).strip("-.") or "empty"


def _parse(key: str, text: str) -> Value:
    named = _NAMED.match(text)
    source = text[named.end() :] if named else text
    try:
        value = yaml.safe_load(source)
    except yaml.YAMLError as error:
        raise ConfigError(f"`set`: {key}: {source!r} is not YAML; quote it") from error
    return Value(_checked(key, named[1]), value) if named else _unnamed(key, value)


def _unnamed(key: str, value: Any) -> Value:
    if isinstance(value, dict | list):
        raise ConfigError(
            f"{key}: found {value!r}, expected a name for it: NAME:{{...}} on the command line, "
            "NAME: {...} in the recipe"
        )
    return Value(yaml.safe_dump(value, width=1000).split("\n", 1)[0].strip("'\""), value)


def _checked(key: str, name: str) -> str:
    if folder_name(name) != name:
        raise ConfigError(f"{key}: found the name {name!r}, expected letters, digits, . _ + -")
    return name


def _distinct(key: str, values: list[Value]) -> list[Value]:
    seen: set[str] = set()
    for each in values:
        if folder_name(each.name) in seen:
            raise ConfigError(f"{key}: found {each.name} twice, expected each value once")
        seen.add(folder_name(each.name))
    return values


def _split(text: str) -> list[str]:
    """Split at commas outside of brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES:
            quote = letter
        depth += 0 if quote else (letter in _OPEN) - (letter in _CLOSE)
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
