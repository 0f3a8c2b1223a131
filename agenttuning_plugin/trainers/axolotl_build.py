"""`agenttuning build --recipe`: write the mix of an Axolotl recipe to disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from agenttuning_plugin.config.rules import section_of
from agenttuning_plugin.reports.rows import MIX
from agenttuning_plugin.trainers.axolotl_recipe import read_for_run
from agenttuning_plugin.trainers.axolotl_settings import run_settings
from agenttuning_plugin.training_data.build import scratch_beside, storage_errors, write_build
from agenttuning_plugin.training_data.run import TrainingRun
from dataset_builders.errors import ConfigError
from dataset_builders.stdio import silenced


def build_recipe(out: Path, recipe: Path, processes: int | None = None) -> dict[str, Any]:
    """Write the mix of a recipe, as a run would build it, with manifest and report.

    The rows are those of a run in one process: more processes make a larger global batch.

    Args:
        out: Folder to make.
        recipe: An Axolotl recipe of this plugin.
        processes: Number of processes that encode; the recipe's by default.

    Returns:
        What `report.json` holds.

    Raises:
        ConfigError: `out` exists, or the recipe is wrong; names all that is.
        AgentTuningError: See `agenttuning_plugin.training_data.run.TrainingRun`.
        StorageError: There is no room for it; nothing is left at `out`.
    """
    if out.exists() or out.is_symlink():
        raise ConfigError(f"{out}: exists already, expected a new folder")
    with silenced():
        cfg, tokenizer = read_for_run(recipe)
        from axolotl.common.const import DEFAULT_DATASET_PREPARED_PATH
    section = section_of(cfg)
    if processes is not None:
        section = section.model_copy(update={"processes": processes})
    with storage_errors(out), scratch_beside(out) as scratch:
        kept = cfg.dataset_prepared_path
        settings = run_settings(cfg, section, Path(kept or scratch / "prepared"))
        # Where training looks for it: made sources are too expensive for a temporary folder.
        settings = replace(settings, made=Path(kept or DEFAULT_DATASET_PREPARED_PATH))
        run = TrainingRun(section, tokenizer, settings)
        places: dict[str, str | None] = {MIX: "."}
        if run.packing:
            # A packed row is not one of the mix: `explain` reads the encoded sources.
            places = run.stored_sides() if kept else {}
        return write_build(out, scratch, run, places, str(cfg.tokenizer_config or ""))
