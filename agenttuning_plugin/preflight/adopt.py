"""`agenttuning adopt`: convert an ordinary Axolotl YAML into a recipe of this plugin.

The text is edited, not regenerated, so that comments and order are kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from agenttuning_plugin.config.rules import PLUGIN, REPLACED_KEYS, check_recipe
from agenttuning_plugin.config.shipped import read_recipe
from agenttuning_plugin.preflight.adopt_sources import UntranslatableError, sources_of
from dataset_builders.errors import AgentTuningError, ConfigError
from dataset_builders.readers.files import looks_local
from dataset_builders.settings import short
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import SourceSpec, stream_source

HOLDOUT = 64
"""Default holdout if a fraction of the data is requested and their number is unknown."""

# What the plugin decides itself: no other rows would be trained without these keys.
_LEFT_OUT = {
    "shuffle_merged_datasets",
    "shuffle_before_merging_datasets",
    "multipack_real_batches",
    "sample_packing_bin_size",
    "sample_packing_eff_est",
    "sample_packing_mp_start_method",
    "sample_packing_sequentially",
    "num_dataset_shards_to_save",
}
_KEY = re.compile(r"^(['\"]?)([\w.-]+)\1\s*:")


@dataclass(slots=True)
class Adopted:
    """A recipe made from an ordinary Axolotl YAML.

    Attributes:
        text: The recipe.
        notes: What was changed or assumed, one line each.
    """

    text: str
    notes: list[str] = field(default_factory=list)


def adopt(path: Path, agent: Sequence[str], eta: float) -> Adopted:
    """Convert an Axolotl YAML into a recipe.

    Args:
        path: The Axolotl YAML; not changed.
        agent: Agent data: files, folders or hub ids.
        eta: Share of agent data.

    Raises:
        ConfigError: A recipe cannot express some of it; names all such settings.
        SourceNotFoundError: There is no such file.
    """
    cfg = read_recipe(path)
    if "agenttuning" in cfg:
        raise ConfigError(f"{path}: agenttuning: this is already a recipe of the plugin")
    adopted = Adopted("")
    wrong: list[str] = []
    general: list[dict[str, Any]] = []
    try:
        general = sources_of(cfg.get("datasets"), adopted.notes)
    except UntranslatableError as error:
        wrong += error.lines
    section: dict[str, Any] = {
        "eta": eta,
        "agent": [{"path": each} for each in agent],
        "general": general,
        **_holdout(cfg, general, adopted.notes),
        **_passes(cfg, adopted.notes),
    }
    if section["holdout"]:
        section["evaluators"] = [{"type": "general_loss"}]
    removed = {"datasets", "val_set_size", "plugins"}
    removed |= {"num_epochs"} if "general_passes" in section else set()
    for key in sorted(REPLACED_KEYS & cfg.keys() - removed):
        if key in _LEFT_OUT or not cfg[key]:
            removed.add(key)
            adopted.notes.append(f"{key}: removed, the plugin determines it")
    kept = {key: value for key, value in cfg.items() if key not in removed}
    plugins = [*(cfg.get("plugins") or []), PLUGIN]
    if not wrong or general:
        # A base model that is not local is not an error of the recipe.
        wrong += _problems({**kept, "base_model": "", "plugins": plugins, "agenttuning": section})
    if wrong:
        raise ConfigError(f"{path}: {'; '.join(wrong)}")
    adopted.text = _edited(path.read_text("utf-8"), removed, plugins, section)
    if _loaded(adopted.text) != {**kept, "plugins": plugins, "agenttuning": section}:
        raise ConfigError(
            f"{path}: cannot be edited as text, expected each top-level key to begin a line and no "
            "anchor shared by replaced and other keys"
        )
    return adopted


def _loaded(text: str) -> Any:
    """Parse the text; None if it is no longer valid YAML."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _problems(cfg: dict[str, Any]) -> list[str]:
    try:
        check_recipe(cfg)
    except ConfigError as error:
        return [str(error)]
    return []


def _holdout(
    cfg: dict[str, Any], general: list[dict[str, Any]], notes: list[str]
) -> dict[str, int]:
    size = cfg.get("val_set_size") or 0
    if not isinstance(size, float) or size >= 1:
        notes.append(f"val_set_size {size}: holdout {int(size)}")
        return {"holdout": int(size)}
    number = _count(general)
    if number is None:
        notes.append(
            f"val_set_size {size}: holdout {HOLDOUT}, as the number of conversations is not known "
            "before they are fetched; set agenttuning.holdout"
        )
        return {"holdout": HOLDOUT}
    holdout = max(1, round(size * number))
    notes.append(f"val_set_size {size}: holdout {holdout}, of {number:,} conversations")
    return {"holdout": holdout}


def _count(general: list[dict[str, Any]]) -> int | None:
    """Count the sources' conversations; None if one is missing or cannot be read."""
    number = 0
    for source in general:
        path = source["path"]
        if not (looks_local(path) or Path(path).expanduser().exists()):
            return None
        try:
            spec = resolve_source(SourceSpec(**source))
            number += sum(1 for _ in stream_source(spec).conversations)
        except AgentTuningError:
            return None
    return number or None


def _passes(cfg: dict[str, Any], notes: list[str]) -> dict[str, float]:
    if cfg.get("max_steps"):
        notes.append(f"max_steps {cfg['max_steps']}: kept; agent data are among these steps")
        return {}
    epochs = cfg.get("num_epochs") or 1
    notes.append(
        f"num_epochs {short(epochs)}: general_passes {epochs}; agent data are added to them"
    )
    return {"general_passes": epochs}


def _edited(text: str, removed: set[str], plugins: list[str], section: dict[str, Any]) -> str:
    """Replace some top-level keys in the text by the plugin's section."""
    lines = text.splitlines(keepends=True)
    kept: list[str] = []
    place: int | None = None
    dropping = False
    for number, line in enumerate(lines):
        key = _KEY.match(line)
        if key:
            dropping = key[2] in removed
        elif dropping and not line[:1].isspace() and not line.startswith(("-", "]", "}")):
            # A comment or separator of the next key.
            dropping = not line.strip() and _next_is_inside(lines[number + 1 :])
        if dropping:
            place = len(kept) if place is None else place
            continue
        kept.append(line)
    place = len(kept) if place is None else place
    body = yaml.safe_dump(
        {"plugins": plugins, "agenttuning": section}, sort_keys=False, allow_unicode=True, width=100
    )
    before = "".join(kept[:place])
    before += "" if not before or before.endswith("\n") else "\n"
    return before + body + "".join(kept[place:])


def _next_is_inside(lines: Sequence[str]) -> bool:
    """Whether a blank line is within a value, not after it."""
    for line in lines:
        if line.strip():
            return line[:1].isspace() or line.startswith("-")
    return False
