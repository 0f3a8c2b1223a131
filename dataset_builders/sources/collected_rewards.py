"""Rewards of a collection's rows, which stand in `origins/` beside its data.

A collection's data have the columns of AgentInstruct, or of chat messages, and no other, so that
whatever reads those reads them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from dataset_builders.errors import DataError
from dataset_builders.readers.building import Converted
from dataset_builders.readers.files import Located, Record, content_fingerprint
from dataset_builders.readers.json_stream import BadRecord, iter_lines
from dataset_builders.tools import finite_number

FOLDER = "origins"
"""Subfolder with one JSON Lines file per task: the task and the reward of each row."""

_TWIN = "messages"


class CollectedRewards:
    """The rewards of a collection's rows by row id.

    Args:
        path: Folder of a source, file or hub id; none but a collection has rewards.

    Raises:
        DataError: A line of `origins/` is no object with an id and a number as reward.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        root = Path(path).expanduser()
        # A collection has both files for each task; another folder may have one of the names.
        named = sorted((root / FOLDER).glob("*.jsonl"))
        files = tuple(file for file in named if (root / _TWIN / file.name).is_file())
        self._located = Located(root, files)
        self._by_id = dict(entry for file in files for entry in _entries(file))

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._by_id)

    def fingerprint(self) -> str:
        """Return the SHA-256 of their files, in hexadecimal."""
        return content_fingerprint(self._located)

    def added_to(self, record: Record, *, convert: Callable[[Record], Converted]) -> Converted:
        """Convert a record; a conversation without a reward gets that of its id.

        Args:
            record: The record.
            convert: Its format's converter, with its errors.
        """
        converted = convert(record)
        conversation = converted.conversation
        if conversation.reward is not None or conversation.id not in self._by_id:
            return converted
        rewarded = replace(conversation, reward=self._by_id[conversation.id])
        return converted._replace(conversation=rewarded)


def _entries(file: Path) -> Iterator[tuple[str, float]]:
    with file.open("rb") as handle:
        for number, value in iter_lines(handle):
            where = f"{file}:{number}"
            if isinstance(value, BadRecord):
                raise DataError(f"{where}: {value.detail}")
            id_, reward = _fields(value)
            if not isinstance(id_, str) or reward is None:
                line = json.dumps(value)
                raise DataError(
                    f"{where}: found {line!r:.80}, expected an id and a number as reward"
                )
            yield id_, reward


def _fields(value: object) -> tuple[object, float | None]:
    if not isinstance(value, Mapping):
        return None, None
    return value.get("id"), finite_number(value.get("reward"))
