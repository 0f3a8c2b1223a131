"""Source specifications, and reading a source with its format's builder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WrapValidator

from dataset_builders.cleaning.agent_faults import Step
from dataset_builders.cleaning.provenance import attributed
from dataset_builders.cleaning.steps import Cleaner, Cleaning, validate_steps
from dataset_builders.conversation import Conversation
from dataset_builders.errors import ConfigError, DataError
from dataset_builders.formats import adp, agentinstruct, atif, completions, messages, sharegpt
from dataset_builders.formats.calls_as_text import stream_calls_as_text
from dataset_builders.readers.building import (
    BuildResult,
    Converted,
    LoadResult,
    Progress,
    build_from_files,
    collect,
)
from dataset_builders.readers.files import Located, content_fingerprint, locate
from dataset_builders.readers.records import stem_of
from dataset_builders.readers.report import SourceReport
from dataset_builders.settings import settings

Format = Literal[
    "agentinstruct", "sharegpt", "messages", "prompt_completion", "alpaca", "adp", "atif"
]
"""Name of a format."""

SCHEMA_VERSION = 3
"""Increased when a builder's conversations for the same files change."""

CONVERTERS: dict[str, Callable[..., Converted]] = {
    "agentinstruct": agentinstruct.convert,
    "sharegpt": sharegpt.convert,
    "messages": messages.convert,
    "prompt_completion": completions.convert_pair,
    "alpaca": completions.convert_alpaca,
    "adp": adp.convert,
    "atif": atif.convert,
}
"""What makes a conversation of a record, by format."""

# As fingerprints name the formats since their first version.
_FINGERPRINT_NAMES = {
    "prompt_completion": "completions:build_prompt_completion",
    "alpaca": "completions:build_alpaca",
}

# Hub datasets that contain several versions of their data.
_DEFAULT_DATA_FILES = {
    agentinstruct.HUB_ID: agentinstruct.DATA_FILES,
    sharegpt.HUB_ID: sharegpt.DATA_FILES,
}


def _unknown(model: Any) -> Any:
    return "" if model is None else model


@settings
class SourceSpec:
    """A source of conversations and which of them to take."""

    path: str = Field(
        min_length=1, description="File, folder or hub dataset id. `~` is the home folder."
    )
    format: Format | None = Field(
        default=None, description="Format of the records; default: detected from the first ones."
    )
    splits: tuple[str, ...] = Field(
        default=(),
        description="Splits to read, such as `[db, os]`; default: all except evaluation splits, "
        "such as `test`.",
    )
    data_files: tuple[str, ...] = Field(
        default=(), description="Glob patterns inside a folder or hub dataset."
    )
    revision: str | None = Field(
        default=None, description="Branch, tag or commit of a hub dataset."
    )
    limit: int | None = Field(
        default=None, ge=1, description="Maximum conversations, from the start; default: all."
    )
    weight: float | None = Field(
        default=None,
        gt=0,
        description="Weight within agent or general data, relative to the other sources; default: "
        "proportional to the number of rows.",
    )
    reconstruct_loss: bool = Field(
        default=False,
        description="Restore the `loss` flags that a copy of AgentInstruct lost.",
    )
    calls_as_text: bool = Field(
        default=False,
        description="Convert tool calls to text, for chat templates without tool support.",
    )
    clean: Annotated[Cleaning | tuple[Step, ...] | None, WrapValidator(validate_steps)] = Field(
        default=None,
        description="For `sharegpt` the cleaning steps by name, default: all, `false`: none; for "
        "`agentinstruct` a list of `strip_terminal_sequences`, `remove_earlier_task` and "
        "`drop_foreign_thoughts`, default: none.",
    )
    model: Annotated[str, BeforeValidator(_unknown)] = Field(
        default="",
        description="Author model of conversations whose record names none, such as `gpt-4`.",
    )

    @property
    def label(self) -> str:
        """Name of the source in reports and messages."""
        return f"{self.format or 'unknown'}:{self.path}"


@dataclass(frozen=True)
class ResolvedSource:
    """A source with known format and files, made by `inputs.resolve_source`; hashed at most once.

    Attributes:
        spec: The source, with a format.
        files: Its files.
    """

    spec: SourceSpec
    files: Located

    def __post_init__(self) -> None:
        _check(self.spec)

    @classmethod
    def of(cls, spec: SourceSpec | ResolvedSource) -> ResolvedSource:
        """Locate the files of a spec that names its format.

        Raises:
            ConfigError: The format or a split is unknown, or the options do not fit.
            SourceNotFoundError: There is no such source.
        """
        if isinstance(spec, ResolvedSource):
            return spec
        _check(spec)
        return cls(spec, located(spec))

    @cached_property
    def fingerprint(self) -> str:
        """See the function `fingerprint`."""
        spec = self.spec
        assert spec.format is not None
        parts = {
            "schema": SCHEMA_VERSION,
            "format": spec.format,
            "builder": "dataset_builders.formats."
            + _FINGERPRINT_NAMES.get(spec.format, f"{spec.format}:build"),
            "limit": spec.limit,
            "calls_as_text": spec.calls_as_text,
            "options": {**_format_options(spec), "clean": asdict(_chat_steps(spec))},
            "model": spec.model,
            "content": content_fingerprint(self.files),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def stream_source(
    source: SourceSpec | ResolvedSource, on_progress: Progress | None = None
) -> BuildResult:
    """Read a source one conversation at a time, in memory independent of its size.

    Args:
        source: The source.
        on_progress: Called with the number of records read, every 1,000 and at the end.

    Returns:
        The conversations, to be iterated once, and the report on its records. Iterating raises
        DataError if a file cannot be read and, at the end, if no record could be used.

    Raises:
        ConfigError: The format or a split is unknown, or the options do not fit.
        SourceNotFoundError: There is no such source.
    """
    resolved = ResolvedSource.of(source)
    spec = resolved.spec
    options = _format_options(spec)
    if spec.format == "sharegpt":
        options["cleaner"] = Cleaner(_chat_steps(spec))
    if spec.format == "atif":
        options["model"] = atif.trajectory_model()
    result = build_from_files(
        resolved.files,
        partial(CONVERTERS[str(spec.format)], **options),
        label=spec.label,
        limit=spec.limit,
        on_progress=on_progress,
    )
    named = attributed(result.conversations, spec.model, result.report)
    if spec.calls_as_text:
        named = stream_calls_as_text(named, result.report.changed)
    return result._replace(conversations=_at_least_one(named, result.report))


def _at_least_one(
    conversations: Iterable[Conversation], report: SourceReport
) -> Iterator[Conversation]:
    yield from conversations
    if not report.kept:
        raise DataError(report.nothing_kept())


def load_source(
    source: SourceSpec | ResolvedSource, on_progress: Progress | None = None
) -> LoadResult:
    """Read a source into memory.

    Args:
        source: The source.
        on_progress: Called with the number of records read, every 1,000 and at the end.

    Returns:
        At least one conversation, and the report on the records.

    Raises:
        ConfigError: The format or a split is unknown, or the options do not fit.
        SourceNotFoundError: There is no such source.
        DataError: A file cannot be read, it holds no record, or none could be used.
    """
    return collect(stream_source(source, on_progress))


def fingerprint(source: SourceSpec | ResolvedSource) -> str:
    """Return the SHA-256, in hexadecimal, of everything that `load_source` depends on.

    It covers the names and bytes of the selected files, the options and the version of
    the builders, but not the location of a copy: equal fingerprints mean equal conversations.

    Raises:
        ConfigError: The format or a split is unknown, or the options do not fit.
        SourceNotFoundError: There is no such source.
    """
    return ResolvedSource.of(source).fingerprint


def _check(spec: SourceSpec) -> None:
    if spec.format is None or spec.format not in CONVERTERS:
        raise ConfigError(
            f"{spec.path}: format: found {spec.format!r}, expected one of {', '.join(CONVERTERS)}"
        )
    if isinstance(spec.clean, Cleaning) and spec.format != "sharegpt":
        raise ConfigError(
            f"{spec.label}: clean: set for format {spec.format}, expected only for sharegpt"
        )
    if isinstance(spec.clean, tuple) and spec.format != "agentinstruct":
        raise ConfigError(
            f"{spec.label}: clean: found a list for format {spec.format}, expected one only for "
            "agentinstruct"
        )
    if spec.reconstruct_loss and spec.format != "agentinstruct":
        raise ConfigError(f"{spec.label}: reconstruct_loss: only for the format agentinstruct")


def located(spec: SourceSpec) -> Located:
    """Locate the files of a source.

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
    # Format-specific options; all are part of the fingerprint.
    if spec.format in ("messages", "prompt_completion", "alpaca"):
        return {"source": stem_of(Path(spec.path)) or messages.SOURCE}
    if spec.format == "agentinstruct":
        # Absent without steps, so that fingerprints are those of before there were any.
        steps = {"steps": tuple(sorted(set(spec.clean)))} if isinstance(spec.clean, tuple) else {}
        return {"reconstruct": spec.reconstruct_loss} | {k: v for k, v in steps.items() if v}
    return {}


def _chat_steps(spec: SourceSpec) -> Cleaning:
    return spec.clean if isinstance(spec.clean, Cleaning) else Cleaning()
