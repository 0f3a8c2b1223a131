"""Choose what a check reads of each source: everything, or its first conversations.

The section that results is built by `TrainingRun` as any other, so that a check shows the rows of
a run and not those of a second implementation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agenttuning_plugin.config.recipe import AgentTuningSection
from agenttuning_plugin.preflight.sizes import size_of
from dataset_builders.readers.files import looks_local
from dataset_builders.sources.hub_cache import cached_copy
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.spec import SourceSpec

SAMPLE = 512
"""Conversations read of each source that is not read whole."""

WHOLE_BYTES = 12 * 2**20
"""Sources up to this size on disk are read whole, such as AgentInstruct (8 MB)."""


@dataclass(frozen=True, slots=True)
class Part:
    """A source and what is read of it.

    Attributes:
        side: "agent" or "general".
        entry: Its number within the side, from 0.
        path: Its path or hub id.
        records: Records in its files, or none if that is not known without reading them.
        exact: Whether these were counted, not estimated from bytes.
        limit: Conversations read of it; none: all.
    """

    side: str
    entry: int
    path: str
    records: int | None
    exact: bool
    limit: int | None

    @property
    def whole(self) -> bool:
        """Whether all of it is read."""
        return self.limit is None


def is_here(spec: SourceSpec) -> bool:
    """Whether a source is a local path or in the hub's cache, so that nothing is fetched."""
    return is_local(spec.path) or cached_copy(spec) is not None


def is_local(path: str) -> bool:
    """Whether a source is a path of this machine, existing or not."""
    return looks_local(path) or Path(path).expanduser().exists()


def needs_all(section: AgentTuningSection) -> bool:
    """Whether a check needs all agent data: a sample may have too little or nothing of a task."""
    return bool(section.task_weights or section.agent_holdout)


def can_sample(section: AgentTuningSection) -> bool:
    """Whether all sources that a run reads are here, so that nothing would be fetched."""
    return all(is_here(spec) for side in section.sides_read() for spec in getattr(section, side))


def local_copy(spec: SourceSpec) -> SourceSpec:
    """Return the source by its folder in the hub's cache, if that is where it is."""
    return spec if is_local(spec.path) else (cached_copy(spec) or spec)


def sampled(section: AgentTuningSection) -> tuple[AgentTuningSection, list[Part]]:
    """Limit each large source of a section to its first conversations.

    Sources without weights are drawn in proportion to their rows; where one of several is
    limited, their estimated sizes become weights, so that shares stay those of a run.

    Args:
        section: A section whose sources are all local or in the hub's cache.

    Returns:
        The section to build, and what it reads of each source.

    Raises:
        DataError: A format cannot be detected, or a file cannot be read.
        SourceNotFoundError: A path does not exist.
    """
    parts: list[Part] = []
    changed: dict[str, Any] = {}
    for side in section.sides_read():
        limit = max(SAMPLE, 2 * section.holdout) if side == "general" else SAMPLE
        whole = side == "agent" and needs_all(section)
        pairs = [
            _limited(side, entry, spec, limit, whole=whole)
            for entry, spec in enumerate(getattr(section, side))
        ]
        parts += [part for _, part in pairs]
        changed[side] = _weighted(pairs)
    if section.general_passes is not None:
        changed["general_passes"] = section.general_passes * _growth(parts)
    return section.model_copy(update=changed), parts


def _limited(
    side: str, entry: int, spec: SourceSpec, limit: int, *, whole: bool
) -> tuple[SourceSpec, Part]:
    source = resolve_source(local_copy(spec))
    size = size_of(source)
    records = size.records
    if records is not None and spec.limit is not None:
        records = min(records, spec.limit)
    whole = whole or size.bytes <= WHOLE_BYTES or (records is not None and records <= limit)
    found = source.spec if whole else replace(source.spec, limit=limit)
    return found, Part(side, entry, spec.path, records, size.exact, None if whole else limit)


def _weighted(pairs: Sequence[tuple[SourceSpec, Part]]) -> list[SourceSpec]:
    specs = [spec for spec, _ in pairs]
    sizes = [part.records for _, part in pairs]
    if (
        len(pairs) < 2
        or all(part.whole for _, part in pairs)
        or any(spec.weight for spec in specs)
        or not all(sizes)
    ):
        return specs
    return [
        replace(spec, weight=float(n or 1) * (spec.vary.growth if spec.vary else 1))
        for spec, n in zip(specs, sizes, strict=True)
    ]


def everything(section: AgentTuningSection) -> list[Part]:
    """Return the parts of a section of which everything is read."""
    return [
        Part(side, entry, spec.path, None, True, None)
        for side in section.sides_read()
        for entry, spec in enumerate(getattr(section, side))
    ]


def _growth(parts: Sequence[Part]) -> float:
    """Return how many times as many general records there are as are read."""
    general = [part for part in parts if part.side == "general" and part.records]
    known = sum(part.records or 0 for part in general)
    read = sum(min(part.limit or math.inf, part.records or 0) for part in general)
    return known / read if read else 1.0
