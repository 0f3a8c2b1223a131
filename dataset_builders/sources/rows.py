"""Convert conversations to a `datasets.Dataset` of messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dataset_builders.conversation import (
    REASONING_FIELD,
    TRAIN_FIELD,
    Conversation,
    optional_columns,
    to_row,
)

if TYPE_CHECKING:
    from datasets import Dataset, Features

_PART_ROWS = 1000


def to_dataset(
    conversations: Sequence[Conversation], columns: Mapping[str, bool] | None = None
) -> Dataset:
    """Convert conversations to a `datasets.Dataset` that Axolotl and TRL can train on.

    Args:
        conversations: The conversations.
        columns: Which optional columns to include, see `optional_columns`; None: as needed.

    Returns:
        Columns `id`, `source`, `task` and `messages`, a list of `role`, `content` and
        `train`; the tool fields, `reasoning_content`, `tools` (JSON text), `model` and
        `reward` only if a conversation has any.
    """
    from datasets import concatenate_datasets

    columns = optional_columns(conversations) if columns is None else columns
    # Types are explicit, not inferred: a list that is empty in every row would become null.
    features = _features(**columns)
    # In parts, as rows of Python objects take several times the memory of Arrow's.
    parts = [
        _part(conversations[start : start + _PART_ROWS], features, columns)
        for start in range(0, max(1, len(conversations)), _PART_ROWS)
    ]
    return concatenate_datasets(parts)


def _part(
    conversations: Sequence[Conversation], features: Features, columns: Mapping[str, bool]
) -> Dataset:
    from datasets import Dataset

    rows = [to_row(conversation, **columns) for conversation in conversations]
    # By columns, so that an empty dataset still has all columns.
    return Dataset.from_dict(
        {name: [row[name] for row in rows] for name in features}, features=features
    )


def _features(
    *,
    tool_calls: bool,
    names: bool,
    tools: bool,
    model: bool,
    reasoning: bool,
    reward: bool = False,
) -> Features:
    from datasets import Features, List, Value

    text = Value("string")
    message: dict[str, Any] = {"role": text, "content": text, TRAIN_FIELD: Value("bool")}
    if tool_calls:
        function = {"name": text, "arguments": text}
        message["tool_calls"] = List({"id": text, "type": text, "function": function})
        message["tool_call_id"] = text
    if names:
        message["name"] = text
    if reasoning:
        message[REASONING_FIELD] = text
    row: dict[str, Any] = {"id": text, "source": text, "task": text, "messages": List(message)}
    row |= {"tools": text} if tools else {}
    row |= {"model": text} if model else {}
    row |= {"reward": Value("float64")} if reward else {}
    return Features(row)
