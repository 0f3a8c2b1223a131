"""Questions with their gold calls, and AgentBench's question files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dataset_builders.errors import ConfigError, DataError, SourceNotFoundError

SPLITS = ("train", "dev", "test")
FILES = {"train": "kg_rl_all.json", "dev": "dev.json", "test": "std.json"}
"""AgentBench's file of each split."""

_CALL = re.compile(r"(\w+)\((.+)\)")


@dataclass(frozen=True, slots=True)
class Question:
    """A knowledge graph task.

    Attributes:
        text: The question.
        kind: Such as "two_hop"; for AgentBench's files their source, such as "grailqa".
        entities: Names that the agent may use, mapped to nodes.
        calls: Gold calls, such as "get_relations(Denton)".
        answers: Entities, or one number as text.
    """

    text: str
    kind: str
    entities: Mapping[str, str]
    calls: tuple[str, ...]
    answers: frozenset[str]


def check_split(split: str) -> None:
    """Raise ConfigError unless a split is "train", "dev" or "test"."""
    if split not in SPLITS:
        raise ConfigError(f"split {split!r} is unknown; known: {', '.join(SPLITS)}")


def read_questions(folder: Path, split: str) -> dict[str, Question]:
    """Read AgentBench's questions of a split.

    Training questions that also occur in dev or test are left out: 13 of the published 1,214.

    Args:
        folder: Holds `std.json`, `dev.json` and `kg_rl_all.json`.
        split: "train", "dev" or "test".

    Returns:
        `qid` to question, in the file's order.

    Raises:
        ConfigError: The split is unknown.
        SourceNotFoundError: The file is missing.
        DataError: A record differs from AgentBench's format.
    """
    check_split(split)
    questions = _read_file(folder / FILES[split])
    if split != "train":
        return questions
    held_out = [folder / FILES[each] for each in SPLITS if each != "train"]
    asked = {
        question.text
        for path in held_out
        if path.is_file()
        for question in _read_file(path).values()
    }
    return {qid: question for qid, question in questions.items() if question.text not in asked}


@cache
def _read_file(path: Path) -> dict[str, Question]:
    if not path.is_file():
        raise SourceNotFoundError(
            f"knowledge_graph: no {path}: put AgentBench's {path.name} there "
            "(data/knowledgegraph of its repository)"
        )
    try:
        records = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: expected JSON: {error}") from error
    if not isinstance(records, list):
        raise DataError(f"{path}: found {type(records).__name__}, expected a list of questions")
    questions: dict[str, Question] = {}
    for number, record in enumerate(records):
        qid, question = _read_record(f"{path}: record {number}", record)
        if qid in questions:
            raise DataError(f"{path}: record {number}: qid {qid!r} occurs twice")
        questions[qid] = question
    return questions


def _read_record(where: str, record: Any) -> tuple[str, Question]:
    if not isinstance(record, dict):
        raise DataError(f"{where}: found {type(record).__name__}, expected an object")
    for field, kind in (("qid", str), ("question", str), ("entities", dict), ("answer", list)):
        if not isinstance(record.get(field), kind):
            found = type(record.get(field)).__name__
            raise DataError(f"{where}: {field}: found {found}, expected {kind.__name__}")
    try:
        answers = frozenset(str(each["answer_argument"]) for each in record["answer"])
    except (KeyError, TypeError) as error:
        raise DataError(f"{where}: answer: expected objects with answer_argument") from error
    calls = record.get("actions") or []
    if not all(isinstance(call, str) and _CALL.fullmatch(call) for call in calls):
        raise DataError(f"{where}: actions: expected calls such as get_relations(m.0abc)")
    question = Question(
        text=record["question"],
        kind=str(record.get("source", "agentbench")),
        entities=record["entities"],
        calls=tuple(_with_names(call, record["entities"]) for call in calls),
        answers=answers,
    )
    return record["qid"], question


def _with_names(call: str, entities: Mapping[str, str]) -> str:
    """Convert a gold call to names where possible, as an agent would write it."""
    names = {node: name for name, node in entities.items() if writable(name)}
    name, arguments = _CALL.fullmatch(call).groups()  # type: ignore[union-attr]
    words = [names.get(word.strip(), word.strip()) for word in arguments.split(",")]
    return f"{name}({', '.join(words)})"


def writable(name: str) -> bool:
    """Whether a name can be parsed back when written as an argument."""
    plain = name == name.strip() and not re.search(r"[,()#\n]|[vV]ariable |^[mf]\.\w+$", name)
    return bool(name) and plain
