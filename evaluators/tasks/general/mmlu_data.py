"""Load MMLU's questions from any of their common layouts."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_builders.errors import DataError
from evaluators.tasks.general.data import Row, benchmark_folder, folder_or_hub, hub_rows, read_rows
from evaluators.tasks.registry import SuiteSettings

LETTERS = ("A", "B", "C", "D")
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "subject": str,
    "question": str,
    "choices": list,
    "answer": (str, int),
}


@dataclass(frozen=True, slots=True)
class Question:
    """A multiple-choice question.

    Attributes:
        subject: Such as "college_physics".
        question: The question.
        choices: Four texts, in the order of the letters.
        answer: Letter of the right one.
    """

    subject: str
    question: str
    choices: tuple[str, ...]
    answer: str

    def text(self) -> str:
        """The question as a user turn."""
        lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, self.choices, strict=True)]
        return "\n".join([f"Question: {self.question.strip()}", *lines])

    @property
    def row(self) -> tuple[str, ...]:
        """All fields as a flat list."""
        return (self.subject, self.question, *self.choices, self.answer)


@dataclass(frozen=True, slots=True)
class MmluData:
    """Questions and worked examples.

    Attributes:
        questions: By item.
        shots: By subject.
        source: Their source.
    """

    questions: Mapping[str, Question]
    shots: Mapping[str, tuple[Question, ...]]
    source: str


def load_mmlu(name: str, settings: SuiteSettings, dataset: str) -> MmluData:
    """Load the data from a folder, else from the hub.

    A folder has `dev/*.csv` and `test/*.csv` as the authors' archive, `dev/*.csv` and a
    `test*.jsonl`, or `all/{dev,test}-*.parquet` as the hub's repository.

    Raises:
        SourceNotFoundError: Neither is available.
        DataError: A file is invalid.
    """

    def find() -> Path:
        # Try each layout; the error message is the last one's, which names the simplest.
        for needs in (("all/dev-*.parquet", "all/test-*.parquet"), ("dev/*.csv", "test*.jsonl")):
            try:
                return benchmark_folder(name, settings, ("mmlu",), needs, "")
            except FileNotFoundError:
                continue
        needs = ("dev/*.csv", "test/*.csv")
        return benchmark_folder(name, settings, ("mmlu",), needs, "MMLU's archive")

    def hub() -> tuple[list[Row], list[Row]]:
        return hub_rows(dataset, "all", "dev"), hub_rows(dataset, "all", "test")

    (dev, test), kind = folder_or_hub(name, settings, find, read_folder, hub)
    source = f"hub {dataset}" if kind == "hub" else "folder"
    return _data(dev, test, source)


def read_folder(folder: Path) -> tuple[list[Row], list[Row]]:
    """Read the rows of shots and test questions, in whichever layout the folder has."""
    if (folder / "all").is_dir():
        splits = [
            [row for file in sorted(folder.glob(f"all/{split}-*")) for row in _rows(file)]
            for split in ("dev", "test")
        ]
        return splits[0], splits[1]
    dev = [row for file in sorted(folder.glob("dev/*.csv")) for row in _csv(file)]
    files = sorted(folder.glob("test*.jsonl")) or sorted(folder.glob("test/*.csv"))
    return dev, [row for file in files for row in _rows(file)]


def _rows(file: Path) -> list[Row]:
    if file.suffix == ".csv":
        return _csv(file)
    return [row | {"where": f"{file}:{n}"} for n, row in enumerate(read_rows(file, _FIELDS), 1)]


def _csv(file: Path) -> list[Row]:
    """Read a subject's file of the authors' archive, which has no header."""
    subject = file.stem.removesuffix("_dev").removesuffix("_test").removesuffix("_val")
    found = []
    with file.open(encoding="utf-8", newline="") as lines:
        for number, cells in enumerate(csv.reader(lines), 1):
            where = f"{file}:{number}"
            if len(cells) != 6:
                raise DataError(f"{where}: found {len(cells)} columns, expected 6")
            question, *choices, answer = cells
            found.append(
                {"subject": subject, "question": question, "choices": choices}
                | {"answer": answer.strip(), "where": where}
            )
    return found


def _data(dev: Iterable[Row], test: Iterable[Row], source: str) -> MmluData:
    shots: dict[str, list[Question]] = {}
    for row in dev:
        shots.setdefault(row["subject"], []).append(_question(row))
    questions: dict[str, Question] = {}
    counts: dict[str, int] = {}
    for row in test:
        subject = row["subject"]
        counts[subject] = counts.get(subject, -1) + 1
        item = f"{subject}/{row.get('row', counts[subject])}"
        if item in questions:
            raise DataError(f"{row.get('where', 'mmlu')}: found {item} twice, expected once")
        questions[item] = _question(row)
    if lacking := sorted(counts.keys() - shots.keys()):
        raise DataError(f"mmlu: {lacking[0]}: found no answered question (dev split)")
    return MmluData(questions, {key: tuple(each) for key, each in shots.items()}, source)


def _question(row: Mapping[str, Any]) -> Question:
    where, answer, choices = row.get("where", "mmlu"), row["answer"], row["choices"]
    if len(choices) != len(LETTERS):
        raise DataError(f"{where}: choices: found {len(choices)}, expected {len(LETTERS)}")
    if isinstance(answer, int) and 0 <= answer < len(LETTERS):
        answer = LETTERS[answer]
    if answer not in LETTERS:
        raise DataError(f"{where}: answer: found {answer!r}, expected A, B, C or D, or 0 to 3")
    return Question(row["subject"], row["question"], tuple(map(str, choices)), answer)
