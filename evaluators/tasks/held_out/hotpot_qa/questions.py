"""HotpotQA's questions: 100 per level, each with ten paragraphs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from dataset_builders.environments.data import find_data
from dataset_builders.errors import DataError

LEVELS = ("easy", "medium", "hard")
_FILES = tuple(f"{level}.jsonl" for level in LEVELS)
_WHAT = (
    "AgentTuning's sample of HotpotQA as JSON Lines (eval_heldout/hotpotQA/src/data of "
    "THUDM/AgentTuning; docs/tasks/held-out/hotpot-qa.md)"
)


@dataclass(frozen=True, slots=True)
class Question:
    """A question.

    Attributes:
        text: Its text.
        answer: The right answer.
        level: One of `LEVELS`.
        titles: Titles of the paragraphs with the answer, in the order of the facts.
        paragraphs: Title and text of the paragraphs that come with it.
    """

    text: str
    answer: str
    level: str
    titles: tuple[str, ...]
    paragraphs: tuple[tuple[str, str], ...]


def find_questions(data: str | Path | None) -> Path:
    """Return the folder of the questions; see `find_data`."""
    return find_data("hotpot_qa", data, ("hotpotqa", "hotpot_qa"), _FILES, _WHAT)


@lru_cache(maxsize=2)
def read_questions(folder: Path) -> dict[str, tuple[Question, ...]]:
    """Read the questions by level.

    Raises:
        DataError: A record lacks a field or has another type; names file and record.
    """
    return {level: tuple(_read(folder / f"{level}.jsonl", level)) for level in LEVELS}


def _read(file: Path, level: str) -> Iterator[Question]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield _question(json.loads(line), level)
            except KeyError as error:
                raise DataError(
                    f"{file}: record {number}: found no {error}, expected question, answer, "
                    "supporting_facts and context"
                ) from error
            except (ValueError, TypeError, AttributeError) as error:
                raise DataError(f"{file}: record {number}: {error}") from error


def _question(row: dict[str, Any], level: str) -> Question:
    titles = dict.fromkeys(str(fact[0]) for fact in row["supporting_facts"])
    paragraphs = tuple(
        (str(title), " ".join(sentence.strip() for sentence in sentences))
        for title, sentences in row["context"]
    )
    return Question(row["question"].strip(), row["answer"], level, tuple(titles), paragraphs)
