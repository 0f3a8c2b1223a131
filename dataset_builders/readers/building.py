"""Shared by the dataset builders: the loop over records and the checks of single turns."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

from dataset_builders.conversation import Conversation, Role, metadata_text
from dataset_builders.readers.files import Located, Record, read_records
from dataset_builders.readers.json_stream import BadRecord, OnLost
from dataset_builders.readers.report import SourceReport
from dataset_builders.readers.turn_lists import turn_list

_PROGRESS_EVERY = 1000  # records

Progress = Callable[[int], None]
"""Receives the number of records read so far."""


RecordReader = Callable[[Located, OnLost], Generator[Record]]
"""Yields the records of a source's files; gets what to call for damage that hides records."""


class BuildResult(NamedTuple):
    """Lazily built conversations of a source, with the report on its records.

    Memory use does not depend on the size of the files; the report is therefore complete only at
    the end.

    Attributes:
        conversations: The conversations kept, in file order; can be iterated once.
        report: Counts of every record so far; complete when the conversations are exhausted.
    """

    conversations: Iterator[Conversation]
    report: SourceReport


class LoadResult(NamedTuple):
    """All conversations of a source in memory, with the report on its records.

    Attributes:
        conversations: The conversations kept, in file order.
        report: Counts of every record.
    """

    conversations: list[Conversation]
    report: SourceReport


def collect(result: BuildResult) -> LoadResult:
    """Read a whole source and keep its conversations in memory."""
    return LoadResult(list(result.conversations), result.report)


class Converted(NamedTuple):
    """A record that was kept, as a conversation.

    Attributes:
        conversation: The conversation built from it.
        changes: Turns that each repair step removed or altered.
        faults: Known faults of its source that it has, by name; counted also if unrepaired.
    """

    conversation: Conversation
    changes: Mapping[str, int]
    faults: Mapping[str, int] = MappingProxyType({})


class Turn(NamedTuple):
    """A checked turn.

    Attributes:
        position: Its place in the stored record, from 0.
        role: Role of the speaker.
        content: Text, verbatim.
        flag: The record's training flag (whether the loss covers the turn); None if it has none.
    """

    position: int
    role: Role
    content: str
    flag: bool | None = None


class RecordDroppedError(Exception):
    """A record cannot be used; raised by a converter, counted by `build_from_files`.

    Attributes:
        reason: Short name to count under.
        detail: Field, what was found and what was expected.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def build_from_files(
    located: Located,
    convert: Callable[[Record], Converted],
    *,
    label: str,
    limit: int | None = None,
    on_progress: Progress | None = None,
    read: RecordReader | None = None,
) -> BuildResult:
    """Convert the records of all files lazily and count each.

    Args:
        located: Files to read.
        convert: Turns a record into a conversation or raises `RecordDroppedError`.
        label: Name of the source in the report.
        limit: Stop after this many kept conversations.
        on_progress: Called every 1,000 records and at the end.
        read: Yields the records; default: those of each file. A stored record that holds several
            conversations is several records, with one location.

    Returns:
        The conversations, each with its record location in `where` if the converter sets none;
        those of one rollout have the same, and are never split apart. Iterating raises DataError
        if a file as a whole cannot be read.
    """
    report = SourceReport(label)
    report.unread.extend(located.unread_lines())
    records = (read or every_record)(located, report.lost.append)
    return BuildResult(_stream(records, convert, report, limit, on_progress), report)


def _stream(
    source: Generator[Record],
    convert: Callable[[Record], Converted],
    report: SourceReport,
    limit: int | None,
    on_progress: Progress | None,
) -> Iterator[Conversation]:
    # Closed on exit, so that no file stays open when a consumer stops early.
    with closing(source) as records:
        for record in records:
            if limit is not None and report.kept >= limit:
                report.limited = True
                break
            conversation = _account(record, convert, report)
            if on_progress is not None and report.read % _PROGRESS_EVERY == 0:
                on_progress(report.read)
            if conversation is not None:
                yield conversation
    if on_progress is not None and (report.read % _PROGRESS_EVERY or not report.read):
        on_progress(report.read)
    report.check()


def every_record(located: Located, on_lost: OnLost) -> Generator[Record]:
    """Yield the records of all files, in order."""
    for file in located.files:
        with closing(read_records(file, on_lost)) as records:
            yield from records


def _account(
    record: Record, convert: Callable[[Record], Converted], report: SourceReport
) -> Conversation | None:
    report.read += 1
    try:
        if isinstance(record.value, BadRecord):
            raise RecordDroppedError(*record.value)
        conversation, changes, faults = convert(record)
    except RecordDroppedError as dropped:
        report.drop(dropped.reason, record.where, dropped.detail)
        return None
    report.keep(changes, conversation)
    report.faults.update(faults)
    return replace(conversation, where=conversation.where or record.where)


def object_of(record: Record) -> Mapping[str, Any]:
    """Return the record, which must be a JSON object.

    Raises:
        RecordDroppedError: It is not an object (`not_an_object`).
    """
    if not isinstance(record.value, Mapping):
        found = type(record.value).__name__
        raise RecordDroppedError("not_an_object", f"found {found}, expected an object")
    return record.value


def id_of(value: Mapping[str, Any]) -> str:
    """Return the id of a record, "" if it has none.

    Raises:
        RecordDroppedError: It holds a lone surrogate (`not_unicode`).
    """
    text = metadata_text(value.get("id"))
    check_unicode(text, "id")
    return text


def turns_of(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the raw turns under `conversations`.

    Raises:
        RecordDroppedError: There are no turns (`no_turns`), or they are not a list of objects
            (`bad_turns`).
    """
    turns = turn_list(value.get("conversations"))
    if turns is None or (isinstance(turns, Sequence) and not turns):
        found = "an empty list" if "conversations" in value and turns is not None else "none"
        raise RecordDroppedError("no_turns", f"conversations: found {found}, expected turns")
    if not isinstance(turns, list):
        found = type(turns).__name__
        raise RecordDroppedError("bad_turns", f"conversations: found {found}, expected a list")
    for index, turn in enumerate(turns):
        if not isinstance(turn, Mapping):
            found = type(turn).__name__
            raise RecordDroppedError(
                "bad_turns", f"turn {index}: found {found}, expected an object"
            )
    return turns


def parse_turn(index: int, raw: Mapping[str, Any], roles: Mapping[str, Role]) -> Turn:
    """Check role and text of a turn in ShareGPT's `from`/`value` layout.

    Args:
        index: Position of the turn in its record, from 0.
        raw: The turn.
        roles: Role by allowed value of `from`.

    Raises:
        RecordDroppedError: `unknown_role`, `content_not_text` or `not_unicode`.
    """
    name, content = raw.get("from"), raw.get("value")
    if not isinstance(name, str) or name not in roles:
        found = "nothing" if "from" not in raw else repr(name)[:40]
        known = ", ".join(roles)
        raise RecordDroppedError(
            "unknown_role", f"turn {index}: from: found {found}, expected one of {known}"
        )
    if not isinstance(content, str):
        found = "nothing" if "value" not in raw else type(content).__name__
        raise RecordDroppedError(
            "content_not_text", f"turn {index}: value: found {found}, expected text"
        )
    check_unicode(content, f"turn {index}: value")
    return Turn(index, roles[name], content)


def check_unicode(text: str, where: str) -> None:
    r"""Reject a lone surrogate: JSON can contain one (`"\ud800"`), but no tokenizer can encode it.

    Raises:
        RecordDroppedError: There is one (`not_unicode`).
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RecordDroppedError(
            "not_unicode", f"{where}: lone surrogate at character {error.start:,}, expected text"
        ) from error


def check_filled(turns: Iterable[Turn], reason: str) -> None:
    """Reject turns without a visible character.

    Raises:
        RecordDroppedError: There is one, under the given reason.
    """
    for turn in turns:
        if not turn.content or turn.content.isspace():
            raise RecordDroppedError(
                reason, f"turn {turn.position}: value: found no visible character, expected text"
            )


def check_alternation(turns: Sequence[Turn]) -> None:
    """Require an optional system turn, then alternating user and assistant turns, user first.

    Raises:
        RecordDroppedError: A turn has another role (`not_alternating`).
    """
    start = 1 if turns and turns[0].role == "system" else 0
    for place, turn in enumerate(turns[start:]):
        expected = "assistant" if place % 2 else "user"
        if turn.role != expected:
            raise RecordDroppedError(
                "not_alternating", f"turn {turn.position}: found {turn.role}, expected {expected}"
            )
