"""Convert trajectories to conversations, and write conversations to a file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from dataset_builders.collection.output import SOURCE
from dataset_builders.conversation import Conversation, optional_columns, to_row
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.storage import replace_text


def to_conversation(trajectory: Trajectory) -> Conversation:
    """Convert a trajectory to a conversation in which the policy's own turns are trained on.

    Raises:
        DataError: The trajectory has no message.
    """
    return Conversation.create(
        trajectory.messages,
        id=trajectory.task_id,
        source=SOURCE,
        task=trajectory.environment,
        tools=trajectory.tools,
    )


def write_jsonl(path: str | os.PathLike[str], conversations: Sequence[Conversation]) -> None:
    """Write conversations in the `messages` format, one JSON object per line, UTF-8.

    The write is atomic: a concurrent reader of `path` finds the old content or the new one.

    Args:
        path: The file; its folder is created if necessary.
        conversations: The conversations; none gives an empty file.

    Raises:
        OSError: The file cannot be written.
        UnicodeEncodeError: A text holds a lone surrogate; `path` is left as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    columns = optional_columns(conversations)
    rows = (to_row(conversation, **columns) for conversation in conversations)
    replace_text(target, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
