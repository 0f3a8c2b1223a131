"""Builders of agent and chat training data, after AgentTuning (arXiv 2310.12823).

Sources become conversations (`load_source`), conversations are mixed in the ratio eta
(`build_mix`), and verified trajectories of further environments are collected
(module `collection`). Nothing here imports torch or transformers, and importing the package loads
no submodule: each name below is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataset_builders.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from dataset_builders.cleaning.steps import Cleaning as Cleaning
    from dataset_builders.conversation import Conversation as Conversation
    from dataset_builders.conversation import Message as Message
    from dataset_builders.conversation import ToolCall as ToolCall
    from dataset_builders.environments.base import TextEnvironment as TextEnvironment
    from dataset_builders.environments.dialogue import Dialogue as Dialogue
    from dataset_builders.environments.tool_environment import ToolEnvironment as ToolEnvironment
    from dataset_builders.environments.tool_functions import tool as tool
    from dataset_builders.errors import AgentTuningError as AgentTuningError
    from dataset_builders.errors import ConfigError as ConfigError
    from dataset_builders.errors import DataError as DataError
    from dataset_builders.errors import SourceNotFoundError as SourceNotFoundError
    from dataset_builders.mixing.mixes import build_mix as build_mix
    from dataset_builders.readers.building import BuildResult as BuildResult
    from dataset_builders.readers.building import LoadResult as LoadResult
    from dataset_builders.readers.report import SourceReport as SourceReport
    from dataset_builders.sources.loading import SourceSpec as SourceSpec
    from dataset_builders.sources.loading import fingerprint as fingerprint
    from dataset_builders.sources.loading import load_source as load_source
    from dataset_builders.sources.loading import stream_source as stream_source
    from dataset_builders.sources.rows import to_dataset as to_dataset
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
