"""Resolve a section's sources once, and load their encoded rows from the cache."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agenttuning_plugin.config.recipe import AgentTuningSection
from agenttuning_plugin.training_data.cache import cache_key, load_or_make
from dataset_builders.mixing.planning import Plan
from dataset_builders.mixing.preparation import EncodedSources, Encoding, prepare
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import ResolvedSource

# Axolotl shows INFO of its own loggers only, and warnings of all.
LOG = logging.getLogger("axolotl.agenttuning")

CACHE_FOLDER = "agenttuning"
"""Folder of encoded sources within the folder of prepared data."""

Sources = dict[str, list[ResolvedSource]]
"""By side, "agent" and "general"."""


def resolve_sources(config: AgentTuningSection, plan: Plan, encoding: Encoding) -> Sources:
    """Locate a section's sources and detect their formats.

    A side with share 0 is skipped, unless the loss is measured on it.

    Raises:
        DataError: A format cannot be detected.
        SourceNotFoundError: A path or hub id does not exist.
    """
    general = plan.needs_general or encoding.holdout > 0
    return {
        "agent": [resolve_source(s) for s in config.agent if plan.needs_agent],
        "general": [resolve_source(s) for s in config.general if general],
    }


def load_encoded(
    sources: Sources,
    plan: Plan,
    tokenizer: Any,
    encoding: Encoding,
    cache: Path | None,
    processes: int,
) -> EncodedSources:
    """Read and encode sources, or load their rows from the cache.

    Args:
        sources: From `resolve_sources`.
        plan: The plan of the mix.
        tokenizer: The tokenizer, its chat template in place.
        encoding: Settings of the rows.
        cache: The trainer's folder of prepared data; none: rows are held in memory.
        processes: Number of processes that encode.

    Raises:
        ConfigError: The tokenizer cannot be used, or a setting is out of range.
        DataError: A source cannot be read, or no row of it is usable.
    """
    agent, general = sources["agent"], sources["general"]

    def make(folder: Path | None) -> EncodedSources:
        with _Bars() as progress:
            return prepare(
                agent,
                general,
                plan=plan,
                tokenizer=tokenizer,
                encoding=encoding,
                folder=folder,
                processes=processes,
                on_progress=progress,
                quiet=True,  # The warning also applies to a cached entry.
            )

    if cache is None:
        return make(None)
    key = cache_key(agent, general, tokenizer, encoding)
    folder = cache / CACHE_FOLDER
    prepared, found = load_or_make(folder, key, make)
    LOG.info("encoded sources %s: %s", "reused" if found else "made", folder / key)
    return prepared


class _Bars:
    """One progress bar per stage, on the terminal that the trainer writes to."""

    def __enter__(self) -> Callable[[str, int], None]:
        from tqdm import tqdm

        self._open: dict[str, Any] = {}

        def progress(stage: str, number: int) -> None:
            if stage not in self._open:
                self._open[stage] = tqdm(desc=stage, unit=" rows")
            self._open[stage].update(number)

        return progress

    def __exit__(self, *_: object) -> None:
        for bar in self._open.values():
            bar.close()
