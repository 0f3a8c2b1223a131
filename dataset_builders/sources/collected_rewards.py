"""Rewards of a collection's rows, which stand in `origins/` beside its data.

A collection's data have the columns of AgentInstruct, or of chat messages, and no other, so that
whatever reads those reads them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from dataset_builders.errors import DataError
from dataset_builders.readers.building import Converted
from dataset_builders.readers.files import Record
from dataset_builders.tools import finite_number

FOLDER = "origins"
"""Subfolder with one JSON Lines file per task: the task and the reward of each row."""


class CollectedRewards:
    """The rewards of a collection's rows by row id.

    Args:
        path: Folder of a source, file or hub id; none but a collection has rewards.

    Raises:
        DataError: A line of `origins/` is no object with an id and a number as reward.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        folder = Path(path).expanduser() / FOLDER
        digest = hashlib.sha256()
        self._by_id: dict[str, float] = {}
        for file in sorted(folder.glob("*.jsonl")) if folder.is_dir() else ():
            try:
                text = file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{file}: cannot be read: {error}") from error
            digest.update(text.encode())
            for number, line in enumerate(text.splitlines(), start=1):
                id_, reward = _entry(f"{file}:{number}", line)
                self._by_id[id_] = reward
        self.digest = digest.hexdigest() if self._by_id else ""

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._by_id)

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


def _entry(where: str, line: str) -> tuple[str, float]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON: {error}") from error
    id_ = value.get("id") if isinstance(value, Mapping) else None
    reward = finite_number(value.get("reward")) if isinstance(value, Mapping) else None
    if not isinstance(id_, str) or reward is None:
        raise DataError(f"{where}: found {line!r:.80}, expected an id and a number as reward")
    return id_, reward
