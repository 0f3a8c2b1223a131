"""In-memory sources: datasets, streaming datasets, lists of dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dataset_builders.conversation import Conversation
from dataset_builders.errors import DataError
from dataset_builders.formats import completions, messages
from dataset_builders.readers.arrow_rows import row_reader, without_nulls
from dataset_builders.readers.building import Converted, RecordDroppedError
from dataset_builders.readers.files import Record

TOKENS = ("input_ids", "labels")
"""Columns of rows that are already tokenized."""

_Convert = Callable[..., Converted]
_CONVERTERS: tuple[tuple[tuple[str, ...], _Convert], ...] = (
    (("messages",), messages.convert),
    (("conversations",), messages.convert),
    (("prompt", "completion"), completions.convert_pair),
    (("instruction", "output"), completions.convert_alpaca),
)


def is_dataset(source: Any) -> bool:
    """Whether a value is a `datasets.Dataset` or `IterableDataset`."""
    # A DatasetDict has this attribute, too, by split.
    return hasattr(source, "column_names") and not isinstance(source, Mapping)


def is_tokens(source: Any) -> bool:
    """Whether a value is a dataset of tokenized rows."""
    columns = getattr(source, "column_names", None)
    return is_dataset(source) and set(TOKENS) <= set(columns or ())


def as_items(source: Any, what: str) -> Sequence[Any]:
    """Return the items of a source that is neither a path nor a dataset.

    Raises:
        DataError: It is not a list of conversations, rows, paths or datasets.
    """
    if isinstance(source, Mapping):
        splits = ", ".join(map(str, source))
        raise DataError(
            f"{what}: found a {type(source).__name__} of {splits or 'nothing'}, expected one "
            f"dataset, such as [{next(iter(source), 'train')!r}] of it"
        )
    if not isinstance(source, Sequence):
        raise DataError(
            f"{what}: found {type(source).__name__}, expected a path, a dataset or a list of "
            "paths, datasets or rows"
        )
    return source


def read_rows(rows: Iterable[Any], what: str) -> Iterator[Conversation]:
    """Convert rows in any of TRL's formats to conversations.

    Args:
        rows: A dataset, or a list of dictionaries.
        what: Name of its part in errors, such as "agent".

    Yields:
        A conversation for each row.

    Raises:
        DataError: The rows have another format, or one of them cannot be used; names it.
    """
    columns = getattr(rows, "column_names", None)
    if columns is not None:
        _converter(columns, what)
    features = getattr(rows, "features", None)
    read = without_nulls if features is None else row_reader(features.arrow_schema)
    for number, row in enumerate(rows):
        where = f"{what}: row {number}"
        if not isinstance(row, Mapping):
            raise DataError(f"{where}: found {type(row).__name__}, expected a row of messages")
        convert = _converter(columns or list(row), where)
        value = read(dict(row)) if columns else dict(row)
        try:
            conversation = convert(Record(where, value, ""), source=what).conversation
        except RecordDroppedError as error:
            raise DataError(f"{where}: {error.detail}") from error
        yield replace(conversation, where=where)


def _converter(columns: Sequence[str], what: str) -> _Convert:
    for needed, convert in _CONVERTERS:
        if set(needed) <= set(columns):
            return convert
    if set(TOKENS) <= set(columns):
        raise DataError(
            f"{what}: found rows of tokens ({', '.join(TOKENS)}) where texts were expected: give "
            "one dataset of them for each side, and a tokenizer if the other side is text"
        )
    names = ", ".join(columns[:10]) or "none"
    raise DataError(
        f"{what}: columns: found {names}, expected messages, conversations, prompt and completion, "
        "instruction and output, or input_ids and labels"
    )
