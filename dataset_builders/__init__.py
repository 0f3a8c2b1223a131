"""Builders of agent and chat training data, after AgentTuning (arXiv 2310.12823).

Sources become conversations (`load_source`), conversations are mixed in the ratio eta
(`build_mix`), and verified trajectories of further environments are collected
(module `collection`). Nothing here imports torch or transformers, and importing the package loads
no submodule: each name below is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataset_builders.cleaning.steps import Cleaning
    from dataset_builders.conversation import Conversation, Message, ToolCall
    from dataset_builders.errors import (
        AgentTuningError,
        ConfigError,
        DataError,
        SourceNotFoundError,
    )
    from dataset_builders.mixing.mixes import build_mix
    from dataset_builders.readers.building import BuildResult, LoadResult
    from dataset_builders.readers.report import SourceReport
    from dataset_builders.sources.loading import (
        SourceSpec,
        fingerprint,
        load_source,
        stream_source,
        to_dataset,
    )

_MODULES = {
    "AgentTuningError": "errors",
    "BuildResult": "readers.building",
    "Cleaning": "cleaning.steps",
    "ConfigError": "errors",
    "Conversation": "conversation",
    "DataError": "errors",
    "LoadResult": "readers.building",
    "Message": "conversation",
    "SourceNotFoundError": "errors",
    "SourceReport": "readers.report",
    "SourceSpec": "sources.loading",
    "ToolCall": "conversation",
    "build_mix": "mixing.mixes",
    "fingerprint": "sources.loading",
    "load_source": "sources.loading",
    "stream_source": "sources.loading",
    "to_dataset": "sources.loading",
}

__all__ = [
    "AgentTuningError",
    "BuildResult",
    "Cleaning",
    "ConfigError",
    "Conversation",
    "DataError",
    "LoadResult",
    "Message",
    "SourceNotFoundError",
    "SourceReport",
    "SourceSpec",
    "ToolCall",
    "build_mix",
    "fingerprint",
    "load_source",
    "stream_source",
    "to_dataset",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
