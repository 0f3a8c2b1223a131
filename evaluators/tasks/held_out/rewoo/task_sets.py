"""ReWOO's task sets: their questions, files and answer comparison."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from dataset_builders.environments.data import find_data
from dataset_builders.errors import DataError, SourceNotFoundError

SAMPLE = 50
SEED = 2024
"""Questions of each set, drawn as the published script draws them."""

Closed = Literal["yes_no", "plausible", "number", "text", ""]


@dataclass(frozen=True, slots=True)
class TaskSet:
    """A set of questions.

    Attributes:
        name: Its name in the published script.
        tools: Tools available to a plan, as in its shell script.
        folders: Names of the data folder.
        files: Its files, all of which are read.
        columns: Columns of question and answer.
        closed: How answers are compared without a judge; "" if only a judge can.
    """

    name: str
    tools: tuple[str, ...]
    folders: tuple[str, ...]
    files: tuple[str, ...]
    columns: tuple[str, str]
    closed: Closed


_ALL = ("Wikipedia", "LLM", "WolframAlpha", "Calculator", "Google")
_OWN = ("rewoo",)
_HOTPOT = tuple(f"{level}.jsonl" for level in ("easy", "medium", "hard"))

TASK_SETS: tuple[TaskSet, ...] = (
    TaskSet(
        "hotpot_qa",
        ("Wikipedia", "LLM"),
        ("hotpotqa", "hotpot_qa"),
        _HOTPOT,
        ("question", "answer"),
        "text",
    ),
    TaskSet(
        "trivia_qa",
        ("Wikipedia", "LLM"),
        ("trivia_qa", "triviaqa"),
        ("trivia_qa.jsonl",),
        ("question", "answer"),
        "text",
    ),
    TaskSet(
        "gsm8k",
        ("LLM", "WolframAlpha", "Calculator"),
        ("gsm8k",),
        ("test*.jsonl",),
        ("question", "answer"),
        "number",
    ),
    TaskSet("strategy_qa", _ALL, _OWN, ("strategy_qa.csv",), ("input", "target"), "yes_no"),
    TaskSet("physics_question", _ALL, _OWN, ("physics_question.csv",), ("input", "target"), ""),
    TaskSet(
        "sports_understanding",
        _ALL,
        _OWN,
        ("sports_understanding.csv",),
        ("input", "target"),
        "plausible",
    ),
    TaskSet(
        "sotu_qa",
        ("LLM", "Calculator", "Google", "SearchSOTU"),
        _OWN,
        ("SOTU_QA.csv", "state_of_the_union.txt"),
        ("question", "answer"),
        "",
    ),
)


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its set."""

    text: str
    answer: str
    task_set: TaskSet


def read_sets(
    data: str | Path | None, root: str | Path | None
) -> tuple[dict[str, list[Question]], dict[str, str]]:
    """Read the questions of every available set.

    Args:
        data: Folder of ReWOO's own files; searched for by `find_data` if None.
        root: Folder of such folders.

    Returns:
        `SAMPLE` questions by name of the set, and by name why a set is absent.

    Raises:
        DataError: A file lacks a column, or a record cannot be read.
    """
    found: dict[str, list[Question]] = {}
    absent: dict[str, str] = {}
    for task_set in TASK_SETS:
        try:
            folder = find_folder(task_set, data, root)
        except SourceNotFoundError:
            absent[task_set.name] = f"no {', '.join(task_set.files)}"
            continue
        questions = list(_read(task_set, folder))
        # Same draw as pandas' DataFrame.sample, which gives the published questions.
        drawn = np.random.RandomState(SEED).choice(
            len(questions), min(SAMPLE, len(questions)), replace=False
        )
        found[task_set.name] = [questions[index] for index in drawn]
    return found, absent


def find_folder(task_set: TaskSet, data: str | Path | None, root: str | Path | None) -> Path:
    """Find the folder of a set's files.

    Raises:
        SourceNotFoundError: It was not found.
    """
    what = "ReWOO's questions (docs/tasks/held-out/rewoo.md)"
    given = data if task_set.folders == _OWN else None
    if given is None and root is not None:
        places = [Path(root) / name for name in task_set.folders]
        given = next((place for place in places if place.is_dir()), places[0])
    return find_data("rewoo", given, task_set.folders, task_set.files, what)


def _read(task_set: TaskSet, folder: Path) -> Iterator[Question]:
    asked, answered = task_set.columns
    for pattern in task_set.files:
        for file in sorted(folder.glob(pattern)):
            if file.suffix == ".txt":
                continue
            for number, row in enumerate(_rows(file), 1):
                question, answer = row.get(asked), row.get(answered)
                if not isinstance(question, str) or answer is None:
                    raise DataError(
                        f"{file}: record {number}: found fields {', '.join(map(str, row))}, "
                        f"expected {asked} and {answered}"
                    )
                yield Question(question, _answer(answer), task_set)


def _rows(file: Path) -> Iterator[Mapping[str, object]]:
    with file.open(encoding="utf-8", newline="") as lines:
        if file.suffix == ".csv":
            yield from csv.DictReader(lines)
            return
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{file}: record {number}: {error}") from error
            yield row if isinstance(row, dict) else {}


def _answer(answer: object) -> str:
    text = str(answer["value"]) if isinstance(answer, Mapping) else str(answer)
    return text.rpartition("#### ")[2].strip()
