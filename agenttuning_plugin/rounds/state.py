"""State of a folder of rounds: what each phase of each round resulted in, written atomically."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from agenttuning_plugin.console import writing
from dataset_builders.errors import ConfigError, DataError
from dataset_builders.storage import replace_text

STATE_FILE = "state.json"

PHASES = ("collect", "select", "train", "decide")
"""Phases of a round, in order."""

_VERSION = 1

Facts = dict[str, Any]
"""JSON-ready result of a phase."""


class RoundsState:
    """Results of finished phases, kept in `state.json`.

    A phase is recorded when it has finished: a process that is killed repeats at most the phase it
    was in, and what that phase had finished itself (played episodes, checkpoints) is reused.

    Args:
        folder: Folder of the rounds; created if necessary.
        settings: What the result depends on.

    Raises:
        ConfigError: The folder was started with other settings; names each.
        DataError: The file is damaged.
        StorageError: The folder cannot be written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        wanted = json.loads(json.dumps(settings))
        self._content = read_state(folder) or {
            "version": _VERSION, "settings": wanted, "start": {}, "rounds": [],
        }  # fmt: skip
        found = self._content["settings"]
        for name in sorted(found.keys() | wanted.keys()):
            if found.get(name) != wanted.get(name):
                raise ConfigError(
                    f"{folder / STATE_FILE}: {name}: these rounds were started with "
                    f"{found.get(name)!r}, found {wanted.get(name)!r}; give it as before, or "
                    "another `out`"
                )

    @property
    def settings(self) -> Facts:
        """What the result depends on."""
        settings: Facts = self._content["settings"]
        return settings

    @property
    def start(self) -> dict[str, Facts]:
        """Facts about round 0, by phase: `train` and `measure`."""
        start: dict[str, Facts] = self._content["start"]
        return start

    @property
    def rounds(self) -> list[dict[str, Facts]]:
        """Facts by phase, of each round from 1."""
        rounds: list[dict[str, Facts]] = self._content["rounds"]
        return rounds

    def start_phase(self, phase: str, make: Callable[[], Facts]) -> Facts:
        """Return the facts of a phase of round 0, see `phase`."""
        return self._once(self.start, phase, make)

    def phase(self, number: int, phase: str, make: Callable[[], Facts]) -> Facts:
        """Return the facts of a phase, made and recorded unless it has finished before.

        Args:
            number: The round, from 1; earlier ones are complete.
            phase: One of `PHASES`.
            make: Carries it out.
        """
        while len(self.rounds) < number:
            self.rounds.append({})
        return self._once(self.rounds[number - 1], phase, make)

    def _once(self, facts: dict[str, Facts], phase: str, make: Callable[[], Facts]) -> Facts:
        if phase not in facts:
            facts[phase] = _as_stored(make())
            self._save()
        return facts[phase]

    def _save(self) -> None:
        with writing(self.folder):
            text = json.dumps(self._content, indent=1, ensure_ascii=False) + "\n"
            replace_text(self.folder / STATE_FILE, text)


def _as_stored(facts: Facts) -> Facts:
    """Return facts as they are read back: a tuple is a list."""
    stored: Facts = json.loads(json.dumps(facts))
    return stored


def read_state(folder: Path) -> dict[str, Any] | None:
    """Return the content of a folder's `state.json`; None if there is none.

    Raises:
        DataError: It is damaged, or of another version.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
        version = content["version"]
        _ = content["settings"].keys(), content["start"].keys(), [*content["rounds"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not the state of rounds: {error}") from error
    if version != _VERSION:
        raise DataError(f"{path}: version: found {version}, expected {_VERSION}")
    return content


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the operating system releases when the process dies.

    Raises:
        ConfigError: Another process holds it.
        StorageError: The folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".rounds.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(f"{folder}: another process is running rounds in it") from None
    try:
        yield
    finally:
        lock.release()
