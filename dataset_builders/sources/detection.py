"""Detect a source's format from its first records."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from dataset_builders.errors import DataError
from dataset_builders.formats.adp import CLASSES
from dataset_builders.formats.agentinstruct import TASKS
from dataset_builders.formats.atif import VERSION_PREFIX
from dataset_builders.formats.meaning import (
    CALLS,
    FLAG_FIELDS,
    REASONING,
    ROW_FIELDS,
    TURN_FIELDS,
    carried,
)
from dataset_builders.formats.openai_log import is_log
from dataset_builders.readers.files import Located, read_records
from dataset_builders.readers.json_stream import BadRecord, OnLost
from dataset_builders.readers.turn_lists import turn_list
from dataset_builders.sources.locating import located
from dataset_builders.sources.spec import Format, SourceSpec

_LOOK_AT = 50
"""Maximum records to inspect: a file may begin with broken ones."""

_TELL = 3
"""Maximum damaged places listed in an error."""

_AGENTINSTRUCT_ID = re.compile(rf"(?:{'|'.join(TASKS)})_\d+")

_REFUSED = {
    "segments": (
        "segments are ready-made text without roles, which a conversation cannot represent; "
        "train on them with Axolotl's input_output, or give the turns as messages"
    ),
    "input_ids": "the rows are tokens already; give build_mix the data set itself, or the texts",
    "rejected": "preference pairs are not conversations to learn; give the chosen one as messages",
}


def detect_format(spec: SourceSpec, files: Located | None = None) -> Format:
    """Detect the builder for a source from the fields of its first 50 records.

    Turns under `conversations` are AgentInstruct's if they have a `loss` flag or their
    record has an id such as "db_12" (a copy that lost its flags must not count as chat, or its
    demonstrations would be trained on); `messages` if they have `role` and `content` or another
    flag; else ShareGPT's.

    Args:
        spec: The source; its format is ignored.
        files: Its files, if already located.

    Raises:
        SourceNotFoundError: There is no such source.
        DataError: None of the first records has a known shape, or it has one that cannot
            become conversations.
    """
    source = files or located(spec)
    if source.trials:
        return "harbor"
    seen = 0
    chat = False
    causes: list[str] = []
    lost: list[str] = []
    for where, value in islice(_values(source, lost.append), _LOOK_AT):
        seen += 1
        if isinstance(value, BadRecord) and not causes:
            causes.append(f"{where}: {value.detail}")
        found = _format_of(value, spec)
        if chat and not (isinstance(value, Mapping) and "conversations" in value):
            continue
        # Only some records may have flags, so chat without them is inconclusive.
        if found is not None and found != "sharegpt":
            return found
        chat = chat or found == "sharegpt"
    if chat:
        return "sharegpt"
    if not seen and not lost:
        raise DataError(f"{spec.path}: found no records, expected at least one conversation")
    raise DataError(
        f"{spec.path}: format: none of the first {seen} records has a field messages, "
        "conversations, prompt and completion, instruction and output, content (ADP), steps "
        "(ATIF), traces (verifiers) or request and response; expected one, or a format to be named"
        + "".join(f"; {cause}" for cause in [*causes, *lost[:_TELL]])
    )


def _values(source: Located, on_lost: OnLost) -> Iterator[tuple[str, Any]]:
    for file in source.files:
        for record in read_records(file, on_lost):
            yield record.where, record.value


def _format_of(value: Any, spec: SourceSpec) -> Format | None:
    if not isinstance(value, Mapping) or isinstance(value, BadRecord):
        return None
    if _is_verifiers(value):
        return "verifiers"
    if is_log(value):
        return "openai_log"
    if "messages" in value:
        return "messages"
    if "conversations" in value:
        return _format_of_turns(value)
    for field, why in _REFUSED.items():
        if isinstance(value.get(field), list | str):
            raise DataError(f"{spec.path}: {field}: {why}")
    if str(value.get("schema_version")).startswith(VERSION_PREFIX) and "steps" in value:
        return "atif"
    if "prompt" in value and "completion" in value:
        return "prompt_completion"
    if "instruction" in value and "output" in value:
        return "alpaca"
    items = value.get("content")
    if isinstance(items, list) and any(
        isinstance(item, Mapping) and item.get("class_") in CLASSES for item in items
    ):
        return "adp"
    return None


def _is_verifiers(value: Mapping[str, Any]) -> bool:
    """Whether a record is verifiers' or prime-rl's; a plain prompt and completion is not."""
    if isinstance(value.get("task"), Mapping) and ("traces" in value or "nodes" in value):
        return True
    return {"prompt", "completion", "example_id", "reward"} <= value.keys() or (
        {"messages", "trace_id", "branch_index"} <= value.keys()
    )


def _format_of_turns(value: Mapping[str, Any]) -> Format | None:
    turns = turn_list(value["conversations"])
    if not isinstance(turns, list):
        return None
    turns = [turn for turn in turns if isinstance(turn, Mapping)]
    # Fields that only `messages` supports.
    if any("role" in turn or turn.get("from") == "tool" for turn in turns):
        return "messages"
    if any(carried(turn, TURN_FIELDS, (*CALLS, *REASONING)) for turn in turns):
        return "messages"
    if carried(value, ROW_FIELDS, ("system", "tools")):
        return "messages"
    id_ = value.get("id")
    if isinstance(id_, str) and _AGENTINSTRUCT_ID.fullmatch(id_):
        return "agentinstruct"
    if any("loss" in turn for turn in turns):
        return "agentinstruct"
    flagged = any(turn.get(name) is not None for turn in turns for name in FLAG_FIELDS)
    return "messages" if flagged else "sharegpt"
