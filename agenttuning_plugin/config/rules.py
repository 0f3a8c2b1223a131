"""Recipe rules that neither Axolotl nor the section's own schema can check.

Does not import Axolotl, so that `agenttuning check` can explain a recipe without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agenttuning_plugin.config.recipe import AgentTuningSection
from agenttuning_plugin.config.sweep import BLOCK
from dataset_builders.errors import ConfigError
from dataset_builders.settings import describe, short, suggestion
from dataset_builders.storage import CACHE
from evaluators.tasks.overall import overall_key
from evaluators.tasks.registry import SUITES
from evaluators.training.floors import BEST_KEY

PLUGIN = "agenttuning_plugin.AgentTuningPlugin"
_PACKAGE = "agenttuning_plugin."

_DATA = "the plugin supplies the data: list sources under agenttuning"
_MASKS = "the plugin trains the model's own turns, each with its end token"
_PACKS = "the plugin packs the rows itself, in the mix's order"
_ORDER = "the plugin determines the order of the rows"
_POSE = "the plugin encodes the rows, without PoSE"
_TUNING = "eta-sampling is for supervised fine-tuning"

# Key, and why a recipe of this plugin must not set it. Unset or false matches the plugin.
_REFUSED = {
    BLOCK: "`agenttuning sweep RECIPE` trains its arms, each with a recipe of its own",
    "datasets": _DATA,
    "pretraining_dataset": _DATA,
    "test_datasets": "the plugin supplies the evaluation set: use agenttuning.holdout",
    "val_set_size": "the plugin supplies the evaluation set: use agenttuning.holdout",
    "rl": _TUNING,
    "reward_model": _TUNING,
    "process_reward_model": _TUNING,
    "streaming": "the mix must be known before the first step",
    "group_by_length": "it would reorder the mix",
    "balance_labels": "it would reorder the mix",  # Axolotl 0.21
    "label_balance_window_optim_steps": "it would reorder the mix",
    "diffusion_lm": _TUNING,
    "train_on_inputs": "the loss covers the model's own turns only",
    "skip_prepare_dataset": "the plugin prepares the data itself",
    "dataset_exact_deduplication": "the plugin reads the data: set clean of a source",
    "dataset_shard_num": "the plugin reads the data: set splits, data_files or limit of a source",
    "dataset_shard_idx": "the plugin reads the data: set splits, data_files or limit of a source",
    "num_dataset_shards_to_save": "the plugin keeps the encoded data itself",
    "push_dataset_to_hub": "the plugin uploads no data",
    "min_sample_len": "the plugin does not drop short rows",
    "eval_sequence_len": "the holdout is as long as sequence_len allows",
    "use_pose": _POSE,
    "pose_max_context_len": _POSE,
    "pose_num_chunks": _POSE,
    "pose_split_on_token_ids": _POSE,
    "processor_type": "the plugin builds text rows, without images",
    "role_boundaries": _MASKS,
    "multipack_real_batches": _PACKS,
    "sample_packing_bin_size": _PACKS,
    "sample_packing_eff_est": _PACKS,
    "sample_packing_mp_start_method": _PACKS,
    "sample_packing_sequentially": _PACKS,
    "pretrain_multipack_attn": _PACKS,
    "pretrain_multipack_buffer_size": _PACKS,
    "pretraining_sample_concatenation": _PACKS,
    "streaming_multipack_buffer_size": _PACKS,
}
# Likewise for any value: it would have no effect.
_VOID = {
    "shuffle_merged_datasets": _ORDER,
    "shuffle_before_merging_datasets": _ORDER,
    # Keys of an entry of `datasets`, which Axolotl drops at the top level.
    "train_on_eos": _MASKS,
    "train_on_eot": _MASKS,
    "roles_to_train": _MASKS,
    "message_field_training": "the plugin reads the flags of a source's own format",
    "message_field_training_detail": "the plugin reads the flags of a source's own format",
    "field_messages": "the plugin reads a source by its format: set format of a source",
    "message_property_mappings": "the plugin reads a source by its format: set format of a source",
    "drop_system_message": "the plugin keeps system messages",
}
# Figures of the holdout that the trainer logs.
_TRAINERS_OWN = ("eval_loss", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
MISSING = (
    "agenttuning: the section is missing, expected at least agenttuning.agent and "
    "agenttuning.general"
)
REPLACED_KEYS = frozenset(_REFUSED) | frozenset(_VOID)
"""Keys that have no effect with the plugin."""


def uses_plugin(cfg: Mapping[str, Any]) -> bool:
    """Whether a recipe has the section or lists the plugin.

    Axolotl calls the hooks of every registered plugin: one loaded by an entry point of the group
    `axolotl.plugins` (0.21), or listed by an earlier recipe of the process, is active in unrelated
    recipes, too.
    """
    names = [str(name).replace(":", ".") for name in cfg.get("plugins") or []]
    return bool(cfg.get("agenttuning")) or any(name.startswith(_PACKAGE) for name in names)


def check_recipe(cfg: Mapping[str, Any], others: Sequence[str] = ()) -> AgentTuningSection:
    """Check a raw recipe, before Axolotl validates it.

    Args:
        cfg: The recipe as read from YAML, its overrides applied (`overrides.apply_overrides`).
        others: Problems that are already known, one line each.

    Returns:
        The section.

    Raises:
        ConfigError: The section is missing or invalid, or other keys contradict it; names all.
    """
    section, found = section_problems(cfg)
    found = [*others, *found, *problems(cfg, section)]
    if section is None or found:
        raise ConfigError("; ".join(found))
    return section


def problems(cfg: Mapping[str, Any], section: AgentTuningSection | None) -> list[str]:
    """Return a recipe's conflicts with the plugin, one line each.

    Args:
        cfg: The recipe.
        section: Its section, or None if that is invalid: checks that depend on it are then skipped.
    """
    found = [*_refused_keys(cfg), *_base_model(cfg)]
    rules = (_one_template, _run_length, _stages, _parallelism, _best_model, _loss_function)
    return found + [line for rule in rules if section for line in rule(cfg, section)]


def _refused_keys(cfg: Mapping[str, Any]) -> Iterator[str]:
    for key, why in _REFUSED.items():
        if cfg.get(key):
            yield f"{key}: found {short(cfg[key])}, expected nothing: {why}"
    for key, why in _VOID.items():
        if cfg.get(key) is not None:
            yield f"{key}: found {short(cfg[key])}, expected nothing: {why}"
    if cfg.get("curriculum_sampling") is False:
        yield (
            "curriculum_sampling: found false, expected true or nothing: a shuffling sampler "
            "would undo the mix's order"
        )
    if splits_batches(cfg.get("accelerator_config")):
        yield SPLIT_BATCHES


def _one_template(cfg: Mapping[str, Any], section: AgentTuningSection) -> Iterator[str]:
    for key in ("chat_template", "chat_template_jinja"):
        if section.chat_template and cfg.get(key):
            yield (
                f"{key}: found {short(cfg[key])} with agenttuning.chat_template "
                f"{section.chat_template!r}, expected one of the two"
            )


def _run_length(cfg: Mapping[str, Any], section: AgentTuningSection) -> Iterator[str]:
    passes = section.general_passes is not None
    if cfg.get("max_steps"):
        if passes:
            yield "agenttuning.general_passes: found with max_steps, expected one of the two"
        return
    if cfg.get("num_epochs") not in (None, 1):
        yield (
            f"num_epochs: found {short(cfg['num_epochs'])}, expected nothing: it has "
            "no effect; set max_steps or agenttuning.general_passes"
        )
    if passes:
        return
    if cfg.get("sample_packing"):
        yield (
            "max_steps: missing, expected a number of steps (or agenttuning.general_passes): with "
            "sample_packing a number of examples does not determine it"
        )
    elif section.num_examples is None:
        yield (
            "max_steps: missing, expected a number of steps (or agenttuning.general_passes): "
            "a mix has no epochs, its sources repeat at different rates"
        )


def _stages(cfg: Mapping[str, Any], section: AgentTuningSection) -> Iterator[str]:
    steps = cfg.get("max_steps")
    for number, stage in enumerate(section.eta_stages):
        if isinstance(steps, int) and steps <= stage.from_step:
            yield (
                f"agenttuning.eta_stages.{number}.from_step: found {stage.from_step}, expected "
                f"less than max_steps, {steps}: the stage would never begin"
            )


def _best_model(cfg: Mapping[str, Any], section: AgentTuningSection) -> Iterator[str]:
    """Check `metric_for_best_model`, which the trainer looks up only after the first evaluation."""
    wanted = cfg.get("metric_for_best_model")
    if not isinstance(wanted, str) or cfg.get("do_causal_lm_eval") or cfg.get("do_bench_eval"):
        return
    key = wanted if wanted.startswith("eval_") else f"eval_{wanted}"
    known = [*_TRAINERS_OWN] if section.general and section.holdout else []
    known += [BEST_KEY] if section.evaluation.best else []
    known += [overall_key(suite) for suite in SUITES]  # its tasks are checked on creation
    beginnings = [f"eval_{evaluator.key}_" for evaluator in section.evaluators]
    if key in known or any(key.startswith(each) for each in beginnings):
        return
    shown = ", ".join([*known[:1], *(f"{each}..." for each in beginnings)]) or "no figure"
    yield (
        f"metric_for_best_model: found {wanted}, which is not logged: this recipe logs {shown}"
        f"{suggestion(key, known)}"
    )


def _parallelism(cfg: Mapping[str, Any], section: AgentTuningSection) -> Iterator[str]:
    """Reject evaluators under tensor or context parallelism: each process needs its own tasks."""
    if not section.evaluators:
        return
    for key in ("tensor_parallel_size", "context_parallel_size", "sequence_parallel_degree"):
        size = cfg.get(key)
        if isinstance(size, int) and size > 1:
            yield (
                f"agenttuning.evaluators: cannot run with {key}: {size}, where processes share one "
                "input: leave them out and run `agenttuning evaluate` on the saved model"
            )


def _loss_function(cfg: Mapping[str, Any], section: AgentTuningSection) -> Iterator[str]:
    """Reject losses that a trainer cannot average over examples."""
    for key in ("use_dft", "use_eaft"):
        if cfg.get(key) and section.loss_normalization == "examples":
            yield (
                f"{key}: found true with agenttuning.loss_normalization: examples, expected "
                "tokens: Axolotl does not average a loss function of its own over micro-batches"
            )


def _base_model(cfg: Mapping[str, Any]) -> Iterator[str]:
    """Check a local `base_model` path, which would otherwise be looked up on the hub."""
    name = str(cfg.get("base_model") or "")
    place = Path(name).expanduser()
    if name.startswith(("~", "/", "./", "../")) and not place.is_dir():
        demo = CACHE.expanduser() in place.parents
        hint = ": run `agenttuning demo --prepare`" if demo else ""
        yield f"base_model: found no folder {place}{hint}"


def section_problems(cfg: Mapping[str, Any]) -> tuple[AgentTuningSection | None, list[str]]:
    """Validate the section of a recipe; return it, or all its problems, one line each."""
    if "agenttuning" not in cfg:
        return None, [MISSING]
    raw = cfg["agenttuning"]
    if hasattr(raw, "to_dict"):
        raw = raw.to_dict()
    try:
        return AgentTuningSection.model_validate(raw), []
    except ValidationError as error:
        return None, [describe(AgentTuningSection, each, "agenttuning") for each in error.errors()]


def section_of(cfg: Mapping[str, Any]) -> AgentTuningSection:
    """Parse the section of a recipe.

    Raises:
        ConfigError: A key is unknown or a value out of its bounds; names each.
    """
    section, found = section_problems(cfg)
    if section is None:
        raise ConfigError("; ".join(found))
    return section


SPLIT_BATCHES = (
    "accelerator_config.split_batches: found true, expected false: a step would have fewer rows "
    "than the mix was made for"
)


def splits_batches(config: Any) -> bool:
    """Whether settings of accelerate divide one batch among the processes."""
    if isinstance(config, dict):
        return bool(config.get("split_batches"))
    return bool(getattr(config, "split_batches", False))
