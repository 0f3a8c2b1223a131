"""Normalise source arguments (path, spec, dataset, list) to conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from dataset_builders.conversation import Conversation
from dataset_builders.errors import ConfigError
from dataset_builders.readers.report import SourceReport
from dataset_builders.sources.detection import detect_format
from dataset_builders.sources.in_memory import as_items, is_dataset, read_rows
from dataset_builders.sources.loading import ResolvedSource, SourceSpec, located, stream_source

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

Item: TypeAlias = "str | Path | SourceSpec | ResolvedSource | Dataset | IterableDataset"
Source: TypeAlias = "Item | Sequence[Item] | Sequence[Conversation] | Sequence[Mapping[str, Any]]"
"""Path, hub id, `SourceSpec` or dataset, or several of them; or conversations or rows."""

_NAMED = str | Path | SourceSpec | ResolvedSource

Progress = Callable[[str, int], None]
"""Called with the name of a stage and the number of items finished since the last call."""


def is_empty(source: Source | None) -> bool:
    """Whether the source is empty."""
    if source is None:
        return True
    # A streaming dataset has no length; no rows are read here.
    return not isinstance(source, _NAMED) and (hasattr(source, "__len__") and not len(source))


def read_source(
    source: Source, what: str, on_progress: Progress | None
) -> tuple[Iterable[Conversation], list[SourceReport]]:
    """Read a source of any kind.

    Args:
        source: The source.
        what: Name of its part in errors, such as "agent".
        on_progress: Called as records are read.

    Returns:
        Its conversations, to be iterated once, and for each file source the report on its records,
        complete when the conversations are exhausted.

    Raises:
        DataError: It cannot be read. If no record of a source is usable, this is raised while
            iterating.
        SourceNotFoundError: A path or hub id does not exist.
    """
    if isinstance(source, _NAMED) or is_dataset(source):
        items: list[Any] = [source]
    else:
        items = list(as_items(source, what))
        if all(isinstance(item, Conversation) for item in items):
            return items, []
        if any(isinstance(item, Mapping) for item in items):
            return read_rows(items, what), []
    parts: list[Iterable[Conversation]] = []
    reports: list[SourceReport] = []
    for entry, item in enumerate(items):
        name = what if len(items) == 1 else f"{what} {entry}"
        if is_dataset(item):
            found: Iterable[Conversation] = read_rows(item, name)
        else:
            built = stream_source(resolve_source(item), _stage(f"reading {what}", on_progress))
            found = built.conversations
            reports.append(built.report)
        parts.append(_of_entry(found, entry))
    return chain.from_iterable(parts), reports


def _of_entry(conversations: Iterable[Conversation], entry: int) -> Iterable[Conversation]:
    """Set the number of the source on its conversations."""
    if entry == 0:
        return conversations
    return (replace(conversation, entry=entry) for conversation in conversations)


def source_weights(source: Source | None, what: str) -> tuple[float, ...]:
    """Return the weights of one side's sources; None if no source has one.

    Raises:
        ConfigError: Some have a weight and some do not, or one is not above 0.
    """
    if source is None or isinstance(source, str | Path) or is_dataset(source):
        return ()
    items = [source] if isinstance(source, _NAMED) else as_items(source, what)
    specs = [item.spec if isinstance(item, ResolvedSource) else item for item in items]
    weights = [spec.weight if isinstance(spec, SourceSpec) else None for spec in specs]
    given = [weight for weight in weights if weight is not None]
    if not given:
        return ()
    if len(given) < len(weights):
        raise ConfigError(
            f"{what}: {len(given)} of {len(weights)} sources have a weight, expected all or none"
        )
    return tuple(given)


def resolve_source(source: str | Path | SourceSpec | ResolvedSource) -> ResolvedSource:
    """Locate a source's files, and detect its format if not given.

    Raises:
        ConfigError: A split is unknown, or the options do not fit.
        DataError: The format cannot be detected; see `detect_format`.
        SourceNotFoundError: There is no such source.
    """
    if isinstance(source, ResolvedSource):
        return source
    spec = source if isinstance(source, SourceSpec) else SourceSpec(path=str(source))
    if spec.format:
        return ResolvedSource.of(spec)
    files = located(spec)
    return ResolvedSource(replace(spec, format=detect_format(spec, files)), files)


def resolve_evaluation_source(source: str | Path | SourceSpec) -> ResolvedSource:
    """Resolve an evaluation source: evaluation splits are read if there are any.

    Args:
        source: Path, hub id or spec; splits given in a spec are kept.

    Raises:
        ConfigError, DataError, SourceNotFoundError: See `resolve_source`.
    """
    found = resolve_source(source)
    names = found.files.evaluation
    return resolve_source(replace(found.spec, splits=names)) if names else found


def _stage(name: str, on_progress: Progress | None) -> Callable[[int], None] | None:
    if on_progress is None:
        return None
    seen = 0

    def report(total: int) -> None:
        nonlocal seen
        on_progress(name, total - seen)
        seen = total

    return report
