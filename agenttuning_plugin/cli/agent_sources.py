"""Agent sources of `agenttuning build` without a recipe: files, variants and recovered episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from dataset_builders.errors import ConfigError
from dataset_builders.settings import read_settings
from dataset_builders.sources.recovery_settings import RecoverSettings
from dataset_builders.sources.spec import SourceSpec
from dataset_builders.variation.settings import VarySettings


def agent_sources(
    paths: Sequence[str],
    recovered: Sequence[str],
    vary: Sequence[str],
    general: Sequence[str],
    settings: Mapping[str, Any],
) -> list[SourceSpec]:
    """Return the agent sources, those of recovered episodes made.

    Args:
        paths: Files, folders and hub ids.
        recovered: Collections whose failed episodes are recovered.
        vary: What is varied, as "tools" or "variants=2".
        general: General sources, whose chats `no_tool_share` shows with tools by default.
        settings: Settings of every source.

    Raises:
        ConfigError: A value of `vary` is wrong.
        AgentTuningError: A source cannot be made.
    """
    given = dict(settings)
    if vary:
        given["vary"] = parse_vary(vary, general)
    files = [SourceSpec(path, **given) for path in paths]
    return files + [_made(RecoverSettings(collection), given) for collection in recovered]


def parse_vary(texts: Sequence[str], general: Sequence[str] = ()) -> VarySettings:
    """Parse settings of format variation from `name` or `name=value`, with YAML values.

    Raises:
        ConfigError: A name is unknown, repeated, or has a wrong value.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if name in found:
            raise ConfigError(f"--vary: {name}: found twice, expected once")
        try:
            found[name] = yaml.safe_load(value) if sign else True
        except yaml.YAMLError as error:
            raise ConfigError(f"--vary: {text!r}: the value is not YAML") from error
    if found.get("no_tool_share"):
        found.setdefault("no_tool_from", tuple(general))
    return read_settings(VarySettings, found, "--vary")


def _made(recipe: RecoverSettings, settings: Mapping[str, Any]) -> SourceSpec:
    from agenttuning_plugin.config.recipe import AgentTuningSection
    from agenttuning_plugin.training_data.made_sources import FOLDER, MakeContext, make_sources
    from dataset_builders.storage import CACHE

    source = SourceSpec(**{"recover": recipe, **settings})
    context = MakeContext((CACHE / "prepared").expanduser() / FOLDER, "", None)
    section = make_sources(AgentTuningSection(eta=1, holdout=0, agent=[source]), context)
    return section.agent[0]
