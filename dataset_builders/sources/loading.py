"""Read a source with its format's builder."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from dataset_builders.cleaning.provenance import attributed
from dataset_builders.cleaning.steps import Cleaning
from dataset_builders.conversation import Conversation
from dataset_builders.errors import ConfigError, DataError
from dataset_builders.formats.calls_as_text import stream_calls_as_text
from dataset_builders.readers.building import (
    BuildResult,
    LoadResult,
    Progress,
    build_from_files,
    collect,
)
from dataset_builders.readers.files import Located, content_fingerprint
from dataset_builders.readers.report import SourceReport
from dataset_builders.sources.collected_rewards import CollectedRewards
from dataset_builders.sources.converters import CONVERTERS, READERS, converter_of
from dataset_builders.sources.detection import detect_format
from dataset_builders.sources.format_options import chat_steps, format_options
from dataset_builders.sources.locating import default_data_files as default_data_files
from dataset_builders.sources.locating import located as located
from dataset_builders.sources.made import read_provenance
from dataset_builders.sources.row_steps import (
    changed_settings,
    check_row_steps,
    stream_row_steps,
)
from dataset_builders.sources.spec import Format as Format
from dataset_builders.sources.spec import SourceSpec as SourceSpec
from dataset_builders.variation.no_tool import with_no_tool_chats
from dataset_builders.variation.protocols import protocols_digest
from dataset_builders.variation.vary import stream_variants

SCHEMA_VERSION = 3
"""Increased when a builder's conversations for the same files change."""

# As fingerprints name the formats since their first version.
_FINGERPRINT_NAMES = {
    "prompt_completion": "completions:build_prompt_completion",
    "alpaca": "completions:build_alpaca",
}


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
        _check(self.spec, self.files)

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
    def made(self) -> dict[str, Any] | None:
        """How the source was made, if it is such a folder; see `made.write_provenance`."""
        return read_provenance(self.spec.path)

    @cached_property
    def rewards(self) -> CollectedRewards:
        """Rewards of the rows of a collection, none of other sources.

        Raises:
            DataError: They cannot be read.
        """
        return CollectedRewards(self.spec.path)

    @cached_property
    def chats(self) -> tuple[ResolvedSource, ...]:
        """Sources of the chats that `vary` shows with tools.

        Raises:
            ConfigError: There are none.
        """
        vary = self.spec.vary
        if vary is None or not vary.no_tool_share:
            return ()
        if not vary.no_tool_from:
            raise ConfigError(
                f"{self.spec.label}: vary.no_tool_from: missing, expected chat for no_tool_share"
            )
        found = []
        for path in vary.no_tool_from:
            files = located(spec := SourceSpec(path))
            found.append(ResolvedSource(replace(spec, format=detect_format(spec, files)), files))
        return tuple(found)

    @cached_property
    def fingerprint(self) -> str:
        """See the function `fingerprint`."""
        spec = self.spec
        assert spec.format is not None
        parts: dict[str, Any] = {
            "schema": SCHEMA_VERSION,
            "format": spec.format,
            "builder": "dataset_builders.formats."
            + _FINGERPRINT_NAMES.get(spec.format, f"{spec.format}:build"),
            "limit": spec.limit,
            "calls_as_text": spec.calls_as_text,
            "options": {**format_options(spec), "clean": asdict(chat_steps(spec))},
            "model": spec.model,
            "content": content_fingerprint(self.files),
        }
        if steps := changed_settings(spec):  # Else the fingerprint of before there were any.
            parts["row_steps"] = steps
        if spec.min_reward is not None:
            parts["min_reward"] = spec.min_reward
        if self.rewards:
            parts["rewards"] = self.rewards.fingerprint()
        if self.made is not None:
            parts["made"] = self.made
        if spec.vary is not None:
            parts["vary"] = {
                **asdict(spec.vary),
                "file": protocols_digest(spec.vary.file),
                "no_tool_from": [chat.fingerprint for chat in self.chats],
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
        DataError: The rewards of a collection cannot be read.
        SourceNotFoundError: There is no such source.
    """
    resolved = ResolvedSource.of(source)
    spec = resolved.spec
    result = build_from_files(
        resolved.files,
        converter_of(spec, resolved.rewards),
        label=spec.label,
        limit=spec.limit,
        on_progress=on_progress,
        read=READERS.get(str(spec.format)),
    )
    named = attributed(result.conversations, spec.model, result.report)
    if spec.vary is not None:
        named = stream_variants(named, spec.vary, result.report.changed)
    named = stream_row_steps(named, spec, result.report.changed)
    if resolved.chats:
        named = _with_chats(named, resolved, result.report.changed)
    if spec.calls_as_text:
        named = stream_calls_as_text(named, result.report.changed)
    return result._replace(conversations=_at_least_one(named, result.report))


def _with_chats(
    conversations: Iterable[Conversation], source: ResolvedSource, changed: Counter[str]
) -> Iterator[Conversation]:
    assert source.spec.vary is not None

    def read(number: int) -> Iterator[Conversation]:
        for chat in source.chats:  # No more than needed: cleaning takes time.
            limited = ResolvedSource(replace(chat.spec, limit=number), chat.files)
            yield from stream_source(limited).conversations

    label = source.spec.label
    return with_no_tool_chats(conversations, read, source.spec.vary, changed, label)


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


def _check(spec: SourceSpec, found: Located | None = None) -> None:
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
    if spec.format == "harbor" and found is not None and not found.trials:
        raise ConfigError(
            f"{spec.label}: found no folder of a trial (config.json and agent/trajectory.json), "
            "expected a harbor job, or the folder of one trial"
        )
    if spec.reconstruct_loss and spec.format != "agentinstruct":
        raise ConfigError(f"{spec.label}: reconstruct_loss: only for the format agentinstruct")
    check_row_steps(spec)
