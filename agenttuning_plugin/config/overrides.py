"""Top-level overrides of the section, as sweeps and command lines write them.

Axolotl's `--sweep` sets top-level keys, `accelerate launch -m axolotl.cli.train` splits a flag
at its first `__`, and Axolotl drops top-level keys that it does not know. An override such as
`agenttuning__eta` would therefore change nothing, unless it is moved into the section first.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

from dataset_builders.errors import ConfigError

SECTION = "agenttuning"

_SEPARATOR = re.compile(r"__|\.")
_SOURCES = ("agent", "general")


def apply_overrides(cfg: MutableMapping[str, Any]) -> list[str]:
    """Move keys such as `agenttuning__eta` or `agenttuning.evaluation.every` into the section.

    An override replaces the section's own value. A part of the key that is a number is an
    index into a list, such as `agenttuning.evaluators.0.every`.

    Args:
        cfg: Recipe; changed in place.

    Returns:
        The keys that were moved, as they were written.

    Raises:
        ConfigError: A top-level key begins with the section's name but is not an override, two
            overrides set one setting, or a path does not exist.
    """
    similar = [key for key in cfg if _looks_like_section(key)]
    moved: dict[tuple[str, ...], str] = {}
    for key in similar:
        first, *path = _SEPARATOR.split(str(key))
        if first != SECTION or not path or "" in path:
            raise ConfigError(
                f"{key}: unknown key, expected {SECTION}, or {SECTION}__KEY for a key of it"
            )
        if tuple(path) in moved:
            raise ConfigError(f"{key}: found with {moved[tuple(path)]}, expected one of the two")
        moved[tuple(path)] = str(key)
    if moved and cfg.get(SECTION) is None:
        cfg[SECTION] = {}
    for place, key in moved.items():
        _set(cfg, (SECTION, *place), cfg.pop(key), key)
    if isinstance(cfg.get(SECTION), dict):
        _split_keys(cfg[SECTION])
    return list(moved.values())


def _looks_like_section(key: object) -> bool:
    """Whether a top-level key seems to mean the section; case is ignored."""
    return isinstance(key, str) and key != SECTION and key.lower().startswith(SECTION)


def _split_keys(section: MutableMapping[str, Any]) -> None:
    """Split keys of the section that contain a path, such as `evaluation__every`."""
    for key in [key for key in section if isinstance(key, str) and _SEPARATOR.search(key)]:
        path = _SEPARATOR.split(key)
        if "" not in path:
            _set(section, tuple(path), section.pop(key), f"{SECTION}.{key}")


def set_key(cfg: MutableMapping[str, Any], key: str, value: Any) -> None:
    """Set a key of a recipe by its path, such as `agenttuning.eta` or `evaluators.0.every`.

    Args:
        cfg: Recipe; changed in place.
        key: The path; its parts are separated by `.` or `__`.
        value: The new value.

    Raises:
        ConfigError: The path leads into a value without keys, or past the end of a list.
    """
    path = path_of(key)
    if "" in path:
        raise ConfigError(f"{key}: found an empty part, expected names separated by dots")
    _set(cfg, path, value, key)


def path_of(key: str) -> list[str]:
    """Return the parts of a key's path."""
    return _SEPARATOR.split(key)


def _set(target: Any, path: Sequence[str], value: Any, key: str) -> None:
    """Set a value at a path, creating missing mappings.

    Raises:
        ConfigError: The path leads into a value without keys, or past the end of a list.
    """
    *parents, last = path
    for part in parents:
        at = _position(target, part, key)
        inner = target.get(at) if isinstance(target, dict) else target[at]
        if inner is None:
            inner = {}
        elif isinstance(inner, str) and part in _SOURCES:
            inner = {"path": inner}  # a source may be given as its path alone
        target[at] = inner
        target = inner
    target[_position(target, last, key)] = value


def _position(target: Any, part: str, key: str) -> Any:
    if isinstance(target, dict):
        return part
    if isinstance(target, list):
        if part.isdigit() and int(part) < len(target):
            return int(part)
        raise ConfigError(f"{key}: found {part!r}, expected a number below {len(target)}")
    raise ConfigError(f"{key}: found {target!r} where {part!r} should be a key of it")


def check_command_line(argv: Sequence[str]) -> None:
    """Reject overrides that `axolotl train` passes to the launcher or drops.

    Args:
        argv: Command line of this process, `sys.argv`.

    Raises:
        ConfigError: There is such an override; the message names what works instead.
    """
    program = Path(argv[0]).stem if argv else ""
    flags = [arg for arg in argv[1:] if arg.startswith(f"--{SECTION}")]
    if program in {"axolotl", "main"} and flags:
        raise ConfigError(
            f"{flags[0]}: `axolotl train` does not pass on overrides of a plugin; run "
            "`accelerate launch -m axolotl.cli.train RECIPE --agenttuning__eta 0.1` (with your "
            "key and value), or use a file of `--sweep`"
        )
