"""Read AgentBench's operating system tasks from a folder in AgentBench's layout."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_builders.environments.operating_system.checks import CHECKS
from dataset_builders.environments.operating_system.scripts import KNOWN_SCRIPTS
from dataset_builders.errors import ConfigError, DataError

SPLITS = ("train", "dev", "test")
LANGUAGES = ("bash", "python")
TRAINING_FILE = "train_0317/training.json"


@dataclass(frozen=True, slots=True)
class Script:
    """A program that runs in the sandbox.

    Attributes:
        language: "bash" or "python".
        code: Its text.
    """

    language: str
    code: str


@dataclass(frozen=True, slots=True)
class NamedCheck:
    """A comparison that runs outside of the sandbox.

    Attributes:
        name: A key of `checks.CHECKS`.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Match:
    """Requirement on an answer.

    Attributes:
        answer: Its text, or None.
        regex: A pattern to find in it, if `answer` is None.
        strip: Whether surrounding white space is removed first.
    """

    answer: str | None
    regex: str | None
    strip: bool


Step = Script | NamedCheck | None
"""One step of an evaluation; None is the reference solution."""


@dataclass(frozen=True, slots=True)
class Task:
    """An operating system task.

    Attributes:
        task_id: Such as "os-test-4-N41-002".
        description: The problem statement.
        init: Scripts that run in sequence in a new sandbox.
        start: Script that then runs in the agent's shell, or None.
        match: Requirement on the answer; None if `checks` apply.
        checks: Run in order; each receives the answer and all earlier outputs.
        gold: The reference solution, or None.
    """

    task_id: str
    description: str
    init: tuple[Script, ...]
    start: Script | None
    match: Match | None
    checks: tuple[Step, ...]
    gold: Script | None


def load_tasks(folder: Path, split: str) -> dict[str, Task]:
    """Read a split's tasks, by id in file order.

    "train" is train_0317/training.json, "dev" is dev.json, and "test" (the evaluation
    split, 144 tasks) the files of the folders 1 to 7, there or in `data`.

    Args:
        folder: Folder of AgentBench's `data/os_interaction`, or one like it.
        split: "train", "dev" or "test".

    Raises:
        ConfigError: The split is unknown.
        DataError: A file or a task in it is invalid.
    """
    if split not in SPLITS:
        raise ConfigError(f"split {split!r} is unknown; known: {', '.join(SPLITS)}")
    return dict(_load(folder.resolve(), split))


@functools.lru_cache(maxsize=8)
def _load(folder: Path, split: str) -> Mapping[str, Task]:
    base = folder / "data" if (folder / "data").is_dir() else folder
    tasks = {}
    if split == "train":
        sources = [(folder / TRAINING_FILE, "7", "os-train-{:04d}")]
    elif split == "dev":
        sources = [(base / "dev.json", "dev", "os-dev-{:03d}")]
    else:
        sources = [
            (file, name, f"os-test-{name}-{file.stem}-{{:03d}}")
            for name in map(str, range(1, 8))
            for file in sorted((base / name).glob("*.json"))
        ]
    for file, scripts, form in sources:
        for index, record in enumerate(_read(file)):
            reader = _Reader(file, index, folder / "scripts" / scripts)
            task = reader.task(form.format(index), record)
            tasks[task.task_id] = task
    return tasks


def _read(file: Path) -> Iterator[Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{file}: is not JSON: {error}") from None
    yield from content if isinstance(content, list) else [content]


@dataclass(frozen=True, slots=True)
class _Reader:
    """Parses one record; errors state its location."""

    file: Path
    index: int
    scripts: Path

    def error(self, field: str, found: object, expected: str) -> DataError:
        where = f"{self.file}: record {self.index}: {field}"
        return DataError(f"{where}: found {str(found)[:80]!r}, expected {expected}")

    def task(self, task_id: str, record: Any) -> Task:
        if not isinstance(record, dict) or not isinstance(record.get("description"), str):
            raise self.error("description", record, "a task with a description")
        evaluation = record.get("evaluation")
        if not isinstance(evaluation, dict) or not evaluation.keys() & {"match", "check"}:
            raise self.error("evaluation", evaluation, "a match or a check")
        gold = evaluation.get("example") or record.get("example")
        create = record.get("create")
        init = create.get("init", []) if isinstance(create, dict) else []
        checks = evaluation.get("check", [])
        start = record.get("start")
        return Task(
            task_id=task_id,
            description=record["description"],
            init=tuple(self.script("create.init", each) for each in _listed(init)),
            start=None if start is None else self.script("start", start),
            match=self.match(evaluation["match"]) if "match" in evaluation else None,
            checks=()
            if "match" in evaluation
            else tuple(self.step(each, gold) for each in _listed(checks)),
            gold=None if gold is None else self.script("evaluation.example", gold),
        )

    def match(self, content: Any) -> Match:
        if isinstance(content, str):
            return Match(content, None, strip=True)
        if isinstance(content, dict) and content.keys() & {"answer", "regex"}:
            strip = bool(content.get("strip", True))
            return Match(content.get("answer"), content.get("regex"), strip)
        raise self.error("evaluation.match", content, "text, or an answer or a regex")

    def step(self, content: Any, gold: Any) -> Step:
        field = "evaluation.check"
        if content is None:
            if gold is None:
                raise self.error("evaluation.example", gold, "the solution that a check runs")
            return None
        named = Path(content["file"]) if isinstance(content, dict) and "file" in content else None
        if named and named.suffix == ".py" and named.stem in CHECKS:
            return NamedCheck(named.stem)
        return self.script(field, content)

    def script(self, field: str, content: Any) -> Script:
        if isinstance(content, str):
            return Script("bash", content)
        if not isinstance(content, dict):
            raise self.error(field, content, "a script")
        language = content.get("language", "bash")
        if language not in LANGUAGES:
            raise self.error(f"{field}.language", language, " or ".join(LANGUAGES))
        if isinstance(content.get("file"), str):
            return Script(language, self.from_file(field, content["file"]))
        if isinstance(content.get("code"), str):
            return Script(language, content["code"])
        raise self.error(field, content, "a script with code or file")

    def from_file(self, field: str, name: str) -> str:
        place = self.scripts / name
        if place.is_file():
            return place.read_text("utf-8")
        if name in KNOWN_SCRIPTS:
            return KNOWN_SCRIPTS[name]
        raise self.error(f"{field}.file", name, f"a known script, or the file {place}")


def _listed(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [content]
