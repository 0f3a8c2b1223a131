"""Telling a source's format from its first record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dataset_builders.errors import DataError
from dataset_builders.files import read_records
from dataset_builders.json_stream import BadRecord
from dataset_builders.sources import Format, SourceSpec, located

_LOOK_AT = 50
"""Records to look at before giving up: a file may begin with broken ones."""


def detect_format(spec: SourceSpec) -> Format:
    """Name of the builder for a source.

    `messages` is told by its column, AgentInstruct by the `loss` flag of its turns, and
    what else has turns under `conversations` is read as ShareGPT.

    Raises:
        SourceNotFoundError: There is no such source.
        DataError: None of the first records has a known shape.
    """
    seen = 0
    for file in located(spec).files:
        for record in read_records(file):
            found = None if isinstance(record.value, BadRecord) else _format_of(record.value)
            if found is not None:
                return found
            seen += 1
            if seen >= _LOOK_AT:
                break
    raise DataError(
        f"{spec.path}: format: none of the first {seen} records has a field messages or "
        "conversations; expected one, or a format to be named"
    )


def _format_of(value: Any) -> Format | None:
    if not isinstance(value, Mapping):
        return None
    if "messages" in value:
        return "messages"
    turns = value.get("conversations")
    if not isinstance(turns, list):
        return None
    flagged = any(isinstance(turn, Mapping) and "loss" in turn for turn in turns)
    return "agentinstruct" if flagged else "sharegpt"
