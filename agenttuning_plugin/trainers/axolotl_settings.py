"""Convert Axolotl's settings to this package's types.

Does not import Axolotl: a recipe is a mapping with attributes, Axolotl's `DictDefault`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from agenttuning_plugin.config.recipe import AgentTuningSection
from agenttuning_plugin.training_data.settings import RunSettings, holdout_of
from dataset_builders.manifest.records import Batch
from dataset_builders.masks.chat_templates import load_template
from dataset_builders.mixing.packing import WINDOW
from dataset_builders.mixing.preparation import Encoding

_PLACEHOLDER = "agenttuning"


def fill_in(cfg: Any) -> None:
    """Set what the mix implies, in a recipe that Axolotl has not validated yet.

    Raises:
        ConfigError: The section's chat template is unknown.
    """
    section = cfg["agenttuning"] if isinstance(cfg.get("agenttuning"), dict) else {}
    # Axolotl insists on an entry. A recipe has none of its own, so that it cannot
    # train when this plugin is missing.
    cfg["datasets"] = [{"path": _PLACEHOLDER, "type": "chat_template"}]
    cfg["curriculum_sampling"] = True
    if cfg.get("sample_packing") and cfg.get("sample_packing_group_size") is None:
        cfg["sample_packing_group_size"] = WINDOW  # Axolotl's own default is 100,000
    if cfg.get("sample_packing") and cfg.get("eval_sample_packing") is None:
        # Packed, what does not fill a batch is dropped: half of a small holdout, or all.
        cfg["eval_sample_packing"] = False
    if section.get("chat_template"):
        cfg["chat_template"] = "jinja"
        cfg["chat_template_jinja"] = load_template(section["chat_template"])
    for name in ("base_model", "tokenizer_config"):
        if isinstance(cfg.get(name), str):
            cfg[name] = os.path.expanduser(cfg[name])  # noqa: PTH111  # may be a hub id


def is_filled_in(cfg: Any) -> bool:
    """Whether this recipe has been through `fill_in` already."""
    entries = cfg.get("datasets") or []
    return [entry.get("path") for entry in entries if isinstance(entry, dict)] == [_PLACEHOLDER]


def encoding_of(cfg: Any, section: AgentTuningSection) -> Encoding:
    """Return the encoding settings, from Axolotl's own keys."""
    return Encoding(
        max_length=cfg.sequence_len,
        policy=cfg.excess_length_strategy or None,
        end_of_turn=tuple(cfg.eot_tokens or ()),
        holdout=holdout_of(section),
        agent_holdout=section.agent_holdout if section.agent else 0,
    )


def run_settings(cfg: Any, section: AgentTuningSection, cache: Path | None) -> RunSettings:
    """Return the settings that the run's data depend on, from Axolotl's own keys.

    Args:
        cfg: The recipe, validated.
        section: Its section.
        cache: Folder of encoded sources; none: they are held in memory.
    """
    return RunSettings(
        encoding_of(cfg, section),
        batch_of(cfg),
        cfg.max_steps or None,
        seed_of(cfg),
        cache,
        cfg.sequence_len if cfg.sample_packing else None,
        cfg.sample_packing_group_size or WINDOW,
        base_model=str(cfg.base_model),
    )


def seed_of(cfg: Any) -> int:
    """Return the seed of the order and of an adapter's initial weights; default: the trainer's."""
    from transformers import TrainingArguments

    return int(TrainingArguments.seed if cfg.seed is None else cfg.seed)


def batch_of(cfg: Any) -> Batch:
    """Return how Axolotl divides the stream into steps; processes that share data count as one."""
    each = cfg.micro_batch_size * cfg.gradient_accumulation_steps
    return Batch(
        micro=cfg.micro_batch_size,
        accumulation=cfg.gradient_accumulation_steps,
        world=max(1, (cfg.batch_size or each) // each),  # none where a Ray worker sets it
    )


def cpu_arguments(cfg: Any) -> dict[str, Any]:
    """Return the training arguments that bf16 needs on a machine without an accelerator.

    transformers refuses `bf16` without a GPU unless `use_cpu` is set, for which Axolotl has no
    key. CPUs with AVX512-BF16 or AMX multiply bfloat16 matrices about four times faster than
    float32; on others it is slower.
    """
    import torch

    if torch.accelerator.is_available() or not (cfg.bf16 or cfg.bfloat16):
        return {}
    return {"use_cpu": True}
