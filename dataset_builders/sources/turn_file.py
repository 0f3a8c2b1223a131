"""The chosen turns of each conversation of a prepared source: a selector made beforehand.

Each line has the digest of a conversation's messages and the indices of its chosen turns, so that
their order does not matter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from dataset_builders.conversation import Conversation
from dataset_builders.errors import DataError
from dataset_builders.storage import replace_text

PLACE = "made/turns.jsonl"
"""The file, within the folder of the source."""


def has_turn_file(path: str) -> bool:
    """Whether a source is a folder with such a file."""
    return bool(path) and (Path(path).expanduser() / PLACE).is_file()


def messages_digest(conversation: Conversation) -> str:
    """Return a digest of what a conversation says: roles, contents and calls."""
    content = [
        [message.role, message.content, [[c.name, c.arguments] for c in message.tool_calls]]
        for message in conversation.messages
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def write_turn_file(folder: Path, chosen: Iterable[tuple[Conversation, Iterable[int]]]) -> str:
    """Write the indices of the chosen turns of each conversation.

    Returns:
        The SHA-256 of the file, in hexadecimal.
    """
    lines = (
        json.dumps({"messages": messages_digest(conversation), "turns": sorted(turns)}) + "\n"
        for conversation, turns in chosen
    )
    text, path = "".join(lines), folder / PLACE
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, text)
    return hashlib.sha256(text.encode()).hexdigest()


class TurnFile:
    """Selector that reads its choice from a file.

    Args:
        path: The file, read when the first conversation comes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _turns(self) -> dict[str, tuple[int, ...]]:
        try:
            rows = map(json.loads, self._path.read_text("utf-8").splitlines())
            return {row["messages"]: tuple(row["turns"]) for row in rows}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self._path}: expected messages and turns in each line: {error}"
            ) from error

    def __call__(self, conversation: Conversation) -> tuple[int, ...]:
        """Return the chosen turns.

        Raises:
            DataError: The file cannot be read, or does not have the conversation.
        """
        try:
            return self._turns[messages_digest(conversation)]
        except KeyError:
            raise DataError(
                f"{conversation.where or conversation.id}: found no entry in {self._path}, "
                "expected one for each conversation; delete the folder to prepare it again"
            ) from None
