"""Whatever a caller may name as a source, read into conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from dataset_builders.conversation import Conversation
from dataset_builders.errors import ConfigError, DataError
from dataset_builders.formats.messages import convert_row
from dataset_builders.reading.building import RecordDroppedError
from dataset_builders.reading.detection import detect_format
from dataset_builders.reading.records import without_nulls
from dataset_builders.reading.report import SourceReport
from dataset_builders.reading.sources import SourceSpec, stream_source

if TYPE_CHECKING:
    from datasets import Dataset

Source: TypeAlias = "str | Path | SourceSpec | Dataset | Sequence[Conversation | SourceSpec]"
"""Path, hub id, `SourceSpec` or several, conversations, or a dataset of either shape."""

Progress = Callable[[str, int], None]
"""Called with the name of a stage and the number of items finished since the last call."""


def is_empty(source: Source | None) -> bool:
    """Whether there is nothing to read."""
    return source is None or (not isinstance(source, str | Path | SourceSpec) and not len(source))


def read_source(
    source: Source, what: str, on_progress: Progress | None
) -> tuple[Iterable[Conversation], list[SourceReport]]:
    """Read a source of any kind.

    Args:
        source: The source.
        what: Name of its part in errors, such as "agent".
        on_progress: Called as records are read.

    Returns:
        Its conversations, to be gone through once, and for each file source what became
        of its records: complete when the conversations have been gone through.

    Raises:
        DataError: It cannot be read. Where no record of a source is usable, this is
            raised as the conversations are gone through.
        SourceNotFoundError: A path or hub id leads nowhere.
    """
    if isinstance(source, str | Path | SourceSpec):
        source = [as_spec(source)]
    columns = getattr(source, "column_names", None)
    if columns is not None:
        if "messages" not in columns:
            raise DataError(
                f"{what}: columns: found {', '.join(columns)}, expected messages or "
                "input_ids and labels"
            )
        return (_row(row, what, number) for number, row in enumerate(source)), []
    items: list[Any] = list(source)
    if all(isinstance(item, Conversation) for item in items):
        return items, []
    stage = f"reading {what}"
    built = [stream_source(as_spec(spec), _stage(stage, on_progress)) for spec in items]
    parts = (_of_entry(result.conversations, entry) for entry, result in enumerate(built))
    return chain.from_iterable(parts), [result.report for result in built]


def _of_entry(conversations: Iterable[Conversation], entry: int) -> Iterable[Conversation]:
    """Conversations that know which of a side's sources they are of."""
    if entry == 0:
        return conversations
    return (replace(conversation, entry=entry) for conversation in conversations)


def source_weights(source: Source | None, what: str) -> tuple[float, ...]:
    """Weights that sources of one side name; none if they name none.

    Raises:
        ConfigError: Some name a weight and some do not, or one is not above 0.
    """
    if source is None or isinstance(source, str | Path) or hasattr(source, "column_names"):
        return ()
    specs = [source] if isinstance(source, SourceSpec) else list(source)
    weights = [spec.weight if isinstance(spec, SourceSpec) else None for spec in specs]
    given = [weight for weight in weights if weight is not None]
    if not given:
        return ()
    if len(given) < len(weights):
        raise ConfigError(
            f"{what}: {len(given)} of {len(weights)} sources have a weight, expected all or none"
        )
    for weight in given:
        if not weight > 0:
            raise ConfigError(f"{what}.weight: found {weight}, expected a number above 0")
    return tuple(given)


def as_spec(source: str | Path | SourceSpec) -> SourceSpec:
    """Make a spec of a path or hub id, telling the format from its first record."""
    if isinstance(source, SourceSpec):
        return source if source.format else replace(source, format=detect_format(source))
    spec = SourceSpec(path=str(source))
    return replace(spec, format=detect_format(spec))


def _row(row: Any, what: str, number: int) -> Conversation:
    try:
        conversation, _ = convert_row(without_nulls(row), source=what)
    except RecordDroppedError as error:
        raise DataError(f"{what}: row {number}: {error.detail}") from error
    return replace(conversation, where=f"{what}: row {number}")


def _stage(name: str, on_progress: Progress | None) -> Callable[[int], None] | None:
    if on_progress is None:
        return None
    seen = 0

    def report(total: int) -> None:
        nonlocal seen
        on_progress(name, total - seen)
        seen = total

    return report
