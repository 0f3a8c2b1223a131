"""Rules of a recipe that neither Axolotl nor the section's own schema can check.

Needs no Axolotl, so that `agenttuning check` can explain a recipe where it is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agenttuning_plugin.args import AgentTuningSection
from agenttuning_plugin.demo_assets import CACHE
from dataset_builders.errors import ConfigError

PLUGIN = "agenttuning_plugin.AgentTuningPlugin"

# Key, and why it cannot stand in a recipe of this plugin.
_REFUSED = {
    "datasets": "the plugin supplies the data: list sources under agenttuning",
    "pretraining_dataset": "the plugin supplies the data: list sources under agenttuning",
    "test_datasets": "the plugin supplies the evaluation set: use agenttuning.holdout",
    "val_set_size": "the plugin supplies the evaluation set: use agenttuning.holdout",
    "rl": "eta-sampling is for supervised fine-tuning",
    "streaming": "the mix has to be known before the first step",
    "group_by_length": "it would reorder the mix",
    "train_on_inputs": "the loss covers the model's own turns only",
    "skip_prepare_dataset": "the plugin prepares the data itself",
}


def check_recipe(cfg: Mapping[str, Any]) -> AgentTuningSection:
    """Check a raw recipe, before Axolotl validates it.

    Args:
        cfg: The recipe as read from YAML.

    Returns:
        The section.

    Raises:
        ConfigError: The section is missing or invalid, or another key contradicts it.
    """
    if "agenttuning" not in cfg:
        raise ConfigError(
            "agenttuning: the section is missing, expected at least agenttuning.agent and "
            "agenttuning.general"
        )
    section = section_of(cfg)
    for key, why in _REFUSED.items():
        if cfg.get(key):
            raise ConfigError(f"{key}: found {_short(cfg[key])}, expected nothing: {why}")
    if cfg.get("curriculum_sampling") is False:
        raise ConfigError(
            "curriculum_sampling: found false, expected true or nothing: a shuffling sampler "
            "would undo the mix's order"
        )
    if section.chat_template and cfg.get("chat_template"):
        raise ConfigError(
            f"chat_template: found {cfg['chat_template']!r} beside agenttuning.chat_template "
            f"{section.chat_template!r}, expected one of the two"
        )
    if cfg.get("sample_packing") and not cfg.get("max_steps"):
        raise ConfigError(
            "max_steps: missing, expected a number of steps: with sample_packing a number of "
            "examples does not decide it"
        )
    if not cfg.get("max_steps") and section.num_examples is None:
        raise ConfigError(
            "max_steps: missing, expected a number of steps (or agenttuning.num_examples): "
            "a mix has no epochs, its sources repeat at different rates"
        )
    if section.evaluators:
        _check_parallelism(cfg)
    _check_base_model(str(cfg.get("base_model") or ""))
    return section


def _check_parallelism(cfg: Mapping[str, Any]) -> None:
    """Evaluators give every process tasks of its own, whether it has the whole model or not."""
    for key in ("tensor_parallel_size", "context_parallel_size", "sequence_parallel_degree"):
        size = cfg.get(key)
        if isinstance(size, int) and size > 1:
            raise ConfigError(
                f"agenttuning.evaluators: cannot run with {key}: {size}, where processes share one "
                "input: leave them out and run `agenttuning evaluate` on the saved model"
            )


def _check_base_model(name: str) -> None:
    """A path that leads nowhere would be looked up on the hub, and fail there obscurely."""
    place = Path(name).expanduser()
    if name.startswith(("~", "/", "./", "../")) and not place.is_dir():
        demo = CACHE.expanduser() in place.parents
        hint = ": run `agenttuning demo --prepare`" if demo else ""
        raise ConfigError(f"base_model: found no folder {place}{hint}")


def section_of(cfg: Mapping[str, Any]) -> AgentTuningSection:
    """Read the section of a recipe.

    Raises:
        ConfigError: A key is unknown or a value out of its bounds; names each.
    """
    raw = cfg["agenttuning"]
    if hasattr(raw, "to_dict"):
        raw = raw.to_dict()
    try:
        return AgentTuningSection.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("; ".join(_describe(item) for item in error.errors())) from error


def _describe(item: Any) -> str:
    where = ".".join(str(part) for part in ("agenttuning", *item["loc"]))
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown key"
    if item["type"] in {"value_error", "missing"}:
        return f"{where}: {message}"
    return f"{where}: found {_short(item['input'])}, {message[:1].lower()}{message[1:]}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
