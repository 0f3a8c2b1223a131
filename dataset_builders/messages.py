"""Conversations in the ecosystem's shape: `messages` of `role` and `content`.

This is the shape that TRL and Axolotl read, that the collector writes and that
`to_dataset` gives, so a written data set can be a source again.
"""

from __future__ import annotations

from functools import partial

from dataset_builders.building import (
    BuildResult,
    Converted,
    Progress,
    RecordDroppedError,
    build_from_files,
    check_unicode,
    object_of,
)
from dataset_builders.conversation import TRAIN_FIELD, Conversation, from_row
from dataset_builders.files import Located, Record
from dataset_builders.provenance import attributed

SOURCE = "messages"


def build(
    located: Located,
    *,
    label: str = SOURCE,
    limit: int | None = None,
    on_progress: Progress | None = None,
    model: str = "",
    source: str = SOURCE,
) -> BuildResult:
    """Build conversations from files of the `messages` shape.

    Args:
        located: Files to read.
        label: Name of the source in the report.
        limit: Stop after this many kept conversations.
        on_progress: Called with the number of records read.
        model: Name of the model that wrote the conversations whose record names none.
        source: Source of the conversations whose record names none.

    Returns:
        The conversations and the report.

    Raises:
        DataError: A file as a whole cannot be read.
    """
    convert = partial(_convert, source=source)
    return build_from_files(
        located, attributed(convert, model), label=label, limit=limit, on_progress=on_progress
    )


def _convert(record: Record, *, source: str) -> Converted:
    value = object_of(record)
    try:
        conversation = from_row(value, source=source)
    # Beside DataError: tool arguments, JSON inside JSON, may hold numbers or a depth that
    # Python's parser refuses.
    except (ValueError, TypeError, RecursionError) as error:
        raise RecordDroppedError("bad_messages", str(error)) from error
    _check_texts(conversation)
    if not conversation.num_trained:
        raise RecordDroppedError(
            "no_trained_turn", f"{TRAIN_FIELD}: true on no assistant turn, expected at least one"
        )
    return Converted(conversation, {})


def _check_texts(conversation: Conversation) -> None:
    for name in ("id", "source", "task"):
        check_unicode(getattr(conversation, name), name)
    for index, message in enumerate(conversation.messages):
        check_unicode(message.content, f"message {index}: content")
        check_unicode(message.tool_call_id, f"message {index}: tool_call_id")
        for call in message.tool_calls:
            check_unicode(call.id + call.name + call.arguments, f"message {index}: tool_calls")
