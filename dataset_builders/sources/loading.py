"""Load a source by name of its format, and turn conversations into a data set."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from dataset_builders.cleaning.provenance import attributed
from dataset_builders.cleaning.steps import Cleaning
from dataset_builders.conversation import (
    REASONING_FIELD,
    TRAIN_FIELD,
    Conversation,
    optional_columns,
    to_row,
)
from dataset_builders.errors import ConfigError, DataError
from dataset_builders.formats import agentinstruct, messages, sharegpt
from dataset_builders.formats.calls_as_text import stream_calls_as_text
from dataset_builders.readers.building import BuildResult, LoadResult, Progress, collect
from dataset_builders.readers.files import Located, content_fingerprint, locate
from dataset_builders.readers.records import stem_of
from dataset_builders.readers.report import SourceReport

if TYPE_CHECKING:
    from datasets import Dataset, Features

Format = Literal[
    "agentinstruct", "sharegpt", "messages", "prompt_completion", "alpaca", "adp", "atif"
]
"""Name of a builder."""

SCHEMA_VERSION = 3
"""Raised when a builder makes other conversations of the same files."""

BUILDERS: dict[str, str] = {
    "agentinstruct": "dataset_builders.formats.agentinstruct:build",
    "sharegpt": "dataset_builders.formats.sharegpt:build",
    "messages": "dataset_builders.formats.messages:build",
    "prompt_completion": "dataset_builders.formats.completions:build_prompt_completion",
    "alpaca": "dataset_builders.formats.completions:build_alpaca",
    "adp": "dataset_builders.formats.adp:build",
    "atif": "dataset_builders.formats.atif:build",
}
"""Builder by format, as "module:function"."""

_PART_ROWS = 1000

# Hub datasets that hold several versions of their data side by side.
_DEFAULT_DATA_FILES = {
    agentinstruct.HUB_ID: agentinstruct.DATA_FILES,
    sharegpt.HUB_ID: sharegpt.DATA_FILES,
}


@dataclass(frozen=True)
class SourceSpec:
    """Where conversations come from and which of them to take.

    Attributes:
        path: A file, a folder or a hub dataset id; see `files.locate`.
        format: Name of the builder; None: not known yet (see `detection`), refused here.
        splits: Splits to read; empty: all but those for evaluation, see `files.locate`.
        data_files: Glob patterns inside the source; empty: all files of one format.
        revision: Branch, tag or commit of a hub dataset.
        limit: Number of conversations to take from the start; None: all.
        weight: Share within its side of the mix, relative to the other sources'; None: by
            its number of rows.
        reconstruct_loss: Whether to put back the `loss` flags that a copy of AgentInstruct
            lost, by the rule of `loss_rule`; a setting of that format only.
        calls_as_text: Whether tool calls are spelt out as text, for chat templates that
            know no tools; see `calls_as_text`.
        clean: Steps of cleaning, of `sharegpt` only; None: all of them.
        model: Name of the model that wrote the conversations whose record names none,
            such as "gpt-4"; "": unknown.
    """

    path: str
    format: Format | None = None
    splits: tuple[str, ...] = ()
    data_files: tuple[str, ...] = ()
    revision: str | None = None
    limit: int | None = None
    weight: float | None = None
    reconstruct_loss: bool = False
    calls_as_text: bool = False
    clean: Cleaning | None = None
    model: str = ""

    @property
    def label(self) -> str:
        """Name of the source in reports and messages."""
        return f"{self.format or 'unknown'}:{self.path}"


def stream_source(spec: SourceSpec, on_progress: Progress | None = None) -> BuildResult:
    """Read a source one conversation at a time, in memory that its size does not change.

    Args:
        spec: The source.
        on_progress: Called with the number of records read, every 1,000 and at the end.

    Returns:
        The conversations, to be gone through once, and what became of every record.
        Going through them raises DataError where a file cannot be read and, at the end,
        where no record could be used.

    Raises:
        ConfigError: The format or a split is unknown, or the options do not fit.
        SourceNotFoundError: There is no such source.
    """
    builder = BUILDERS[_check(spec)]
    module, _, function = builder.partition(":")
    build = getattr(importlib.import_module(module), function)
    options: dict[str, Any] = {"limit": spec.limit, "on_progress": on_progress}
    options.update(_format_options(spec))
    result = cast(BuildResult, build(located(spec), label=spec.label, **options))
    named = attributed(result.conversations, spec.model, result.report)
    if spec.calls_as_text:
        named = stream_calls_as_text(named, result.report.changed)
    return result._replace(conversations=_at_least_one(named, result.report))


def _at_least_one(
    conversations: Iterable[Conversation], report: SourceReport
) -> Iterator[Conversation]:
    yield from conversations
    if not report.kept:
        raise DataError(_describe_nothing(report))


def load_source(spec: SourceSpec, on_progress: Progress | None = None) -> LoadResult:
    """Read a source into memory.

    Args:
        spec: The source.
        on_progress: Called with the number of records read, every 1,000 and at the end.

    Returns:
        At least one conversation, and what became of every record.

    Raises:
        ConfigError: The format or a split is unknown, or the options do not fit.
        SourceNotFoundError: There is no such source.
        DataError: A file cannot be read, it holds no record, or none could be used.
    """
    return collect(stream_source(spec, on_progress))


def fingerprint(spec: SourceSpec) -> str:
    """Return a SHA-256, in hexadecimal, of all that `load_source` depends on.

    It covers the names and bytes of the selected files, the options and the version of
    the builders, but not where a copy lies: equal fingerprints mean equal conversations.

    Raises:
        ConfigError: The format or a split is unknown, or the options do not fit.
        SourceNotFoundError: There is no such source.
    """
    name = _check(spec)
    parts = {
        "schema": SCHEMA_VERSION,
        "format": name,
        "builder": BUILDERS[name],
        "limit": spec.limit,
        "calls_as_text": spec.calls_as_text,
        "options": {**_format_options(spec), "clean": asdict(spec.clean or Cleaning())},
        "model": spec.model,
        "content": content_fingerprint(located(spec)),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def to_dataset(
    conversations: Sequence[Conversation], columns: Mapping[str, bool] | None = None
) -> Dataset:
    """Turn conversations into a `datasets.Dataset` that Axolotl and TRL can train on.

    Args:
        conversations: The conversations.
        columns: Which optional columns to have, see `optional_columns`; none: as needed.

    Returns:
        Columns `id`, `source`, `task` and `messages`, a list of `role`, `content` and
        `train`; the tool fields, `reasoning_content`, `tools` (JSON text) and `model` only
        if a conversation has any.
    """
    from datasets import concatenate_datasets

    columns = optional_columns(conversations) if columns is None else columns
    # Types are given, not inferred: a list that is empty in every row would become null.
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
    # By columns, so that no rows still give all columns.
    return Dataset.from_dict(
        {name: [row[name] for row in rows] for name in features}, features=features
    )


def _features(
    *, tool_calls: bool, names: bool, tools: bool, model: bool, reasoning: bool
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
    return Features(row)


def _check(spec: SourceSpec) -> str:
    if spec.format is None or spec.format not in BUILDERS:
        raise ConfigError(
            f"{spec.path}: format: found {spec.format!r}, expected one of {', '.join(BUILDERS)}"
        )
    if spec.clean is not None and spec.format != "sharegpt":
        raise ConfigError(
            f"{spec.label}: clean: set for format {spec.format}, expected only for sharegpt"
        )
    if spec.limit is not None and spec.limit < 1:
        raise ConfigError(f"{spec.label}: limit: found {spec.limit}, expected 1 or more")
    if spec.reconstruct_loss and spec.format != "agentinstruct":
        raise ConfigError(f"{spec.label}: reconstruct_loss: only for the format agentinstruct")
    return spec.format


def located(spec: SourceSpec) -> Located:
    """Find the files of a source.

    Raises:
        ConfigError: A split is unknown, or the options do not fit the path.
        SourceNotFoundError: There is no such source.
        DataError: A file has another format, or a shard of a split is missing.
    """
    data_files = spec.data_files
    if not data_files and not Path(spec.path).expanduser().exists():
        data_files = _DEFAULT_DATA_FILES.get(spec.path, ())
    return locate(spec.path, revision=spec.revision, data_files=data_files, splits=spec.splits)


def _format_options(spec: SourceSpec) -> dict[str, Any]:
    # What one format has beyond the others; all of it goes into the fingerprint.
    if spec.format in ("messages", "prompt_completion", "alpaca"):
        return {"source": stem_of(Path(spec.path)) or messages.SOURCE}
    if spec.format == "agentinstruct":
        return {"reconstruct": spec.reconstruct_loss}
    if spec.format == "sharegpt":
        return {"clean": spec.clean or Cleaning()}
    return {}


def _describe_nothing(report: SourceReport) -> str:
    damage = f"; damage: {'; '.join(report.lost[:3])}" if report.lost else ""
    if not report.read:
        return f"{report.source}: found no record{damage}"
    counts = ", ".join(f"{reason} {count:,}" for reason, count in report.dropped.most_common())
    commonest = report.dropped.most_common(1)[0][0]
    return (
        f"{report.source}: none of {report.read:,} records can be used: {counts}; "
        f"for example {report.samples[commonest][0]}{damage}"
    )
