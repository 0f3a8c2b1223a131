"""Read the steps of annotated tasks from Mind2Web's files.

Record (OSU-NLP-Group/Mind2Web): `{annotation_id, website, domain, subdomain,
confirmed_task, action_reprs: [text], actions: [{action_uid, raw_html, cleaned_html,
operation: {op, original_op, value}, pos_candidates, neg_candidates: [{backend_node_id,
...}]}]}`. Raw pages are not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_builders.environments.mind2web.dom import ID
from dataset_builders.errors import DataError
from dataset_builders.readers.json_stream import BadRecord
from dataset_builders.readers.records import SUFFIXES, read_records, stem_of, suffix_of

SPLITS = ("train", "dev", "test", "test_task", "test_website")
"""Splits by name; "test" is AgentBench's, the cross-domain one."""

_FILE = re.compile(r"(train|dev|test_task|test_website|test_domain)(?:[_-]\d+.*)?")
_FOLDERS = {"data_dev": "dev", "data_std": "test"}  # AgentBench's names


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an annotated task, as a separate task.

    Attributes:
        id: `<annotation_id>_<action_uid>`, the benchmark's own.
        website: Name of the site.
        task: Goal of the whole annotation.
        previous: The annotated actions before this one, in words.
        op: The annotated operation: CLICK, TYPE or SELECT.
        value: What is typed or selected, or "".
        positives: Ids of the right elements.
        negatives: Ids of wrong elements.
        page: The page before the step, as `cleaned_html`.
    """

    id: str
    website: str
    task: str
    previous: tuple[str, ...]
    op: str
    value: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    page: str


def split_files(folder: Path) -> dict[str, list[Path]]:
    """Return the files of each existing split, sorted.

    The split is stated by the file's name, such as `train_0.json`, or that of its folder, such as
    `test_domain/`, at any depth.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and suffix_of(path) in SUFFIXES and (split := _split_of(path)):
            found.setdefault(split, []).append(path)
    return {split: found[split] for split in SPLITS if split in found}


def _split_of(path: Path) -> str:
    if path.name.startswith("."):
        return ""
    for name in (stem_of(path), path.parent.name):
        if name in _FOLDERS:
            return _FOLDERS[name]
        if match := _FILE.fullmatch(name):
            return "test" if match[1] == "test_domain" else match[1]
    return ""


def read_steps(path: Path) -> Iterator[Step]:
    """Read the steps of a file, in order and in bounded memory.

    Raises:
        DataError: The file or a record differs from Mind2Web's format; names the field.
    """

    def lost(damage: str) -> None:
        raise DataError(f"{path}: {damage} (annotations of over 64 MiB: leave out raw_html)")

    for record in read_records(path, lost):
        if isinstance(record.value, BadRecord):
            raise DataError(f"{path.parent / record.where}: {record.value.detail}")
        try:
            yield from _steps(record.value)
        except DataError as error:
            raise DataError(f"{path.parent / record.where}: {error}") from error


def _steps(record: Any) -> Iterator[Step]:
    if not isinstance(record, Mapping):
        raise DataError(f"found {type(record).__name__}, expected an object")
    annotation = _text(record, "annotation_id")
    actions, words = _list(record, "actions"), _list(record, "action_reprs")
    if len(actions) != len(words):
        raise DataError(f"action_reprs: found {len(words)}, expected {len(actions)} (actions)")
    if not all(isinstance(each, str) for each in words):
        raise DataError("action_reprs: found other values than text")
    for index, action in enumerate(actions):
        try:
            operation = action["operation"]
            yield Step(
                id=f"{annotation}_{_text(action, 'action_uid')}",
                website=_text(record, "website"),
                task=_text(record, "confirmed_task"),
                previous=tuple(words[:index]),
                op=_text(operation, "op"),
                value=_text(operation, "value"),
                positives=_identifiers(action, "pos_candidates"),
                negatives=_identifiers(action, "neg_candidates"),
                page=_text(action, "cleaned_html"),
            )
        except DataError as error:
            raise DataError(f"actions[{index}]: {error}") from error
        except (TypeError, KeyError):
            raise DataError(f"actions[{index}]: operation: found none, expected one") from None


def _text(record: Any, name: str) -> str:
    value = record.get(name) if isinstance(record, Mapping) else None
    if not isinstance(value, str):
        found = "nothing" if value is None else type(value).__name__
        raise DataError(f"{name}: found {found}, expected text")
    return value


def _list(record: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = record.get(name)
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError(f"{name}: found {type(value).__name__}, expected a list")
    return value


def _identifiers(action: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = []
    for index, candidate in enumerate(_list(action, name)):
        try:
            found.append(_text(candidate, ID))
        except DataError as error:
            raise DataError(f"{name}[{index}]: {error}") from error
    return tuple(dict.fromkeys(found))
