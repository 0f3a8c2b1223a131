"""`agenttuning build --recipe`: the mix of an Axolotl recipe written to disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agenttuning_plugin.config.rules import section_of
from agenttuning_plugin.reports.rows import AGENT, GENERAL, MIX, folder_of
from agenttuning_plugin.trainers.axolotl_recipe import read_for_run
from agenttuning_plugin.trainers.axolotl_settings import batch_of, budget_of, encoding_of, seed_of
from agenttuning_plugin.training_data.build import scratch_beside, storage_errors, write_build
from agenttuning_plugin.training_data.run import load_mix
from agenttuning_plugin.training_data.run_files import run_of
from dataset_builders.errors import ConfigError
from dataset_builders.stdio import silenced

if TYPE_CHECKING:
    from datasets import Dataset


def build_recipe(out: Path, recipe: Path, processes: int | None = None) -> dict[str, Any]:
    """Write the mix of a recipe, as a run of it would make it, with its manifest and report.

    The rows are those of a run in one process: more processes make a larger global batch.

    Args:
        out: Folder to make.
        recipe: An Axolotl recipe of this plugin.
        processes: Number of processes that encode; the recipe's by default.

    Returns:
        What `report.json` holds.

    Raises:
        ConfigError: `out` exists, or the recipe is wrong; names all that is.
        AgentTuningError: See `agenttuning_plugin.training_data.run.load_mix`.
        StorageError: There is no room for it; nothing is left at `out`.
    """
    if out.exists() or out.is_symlink():
        raise ConfigError(f"{out}: exists already, expected a new folder")
    with silenced():
        cfg, tokenizer = read_for_run(recipe)
    section = section_of(cfg)
    if processes is not None:
        section = section.model_copy(update={"processes": processes})
    encoding = encoding_of(cfg, section)
    with storage_errors(out), scratch_beside(out) as scratch:
        made = load_mix(
            section,
            tokenizer,
            encoding=encoding,
            budget=budget_of(cfg),
            seed=seed_of(cfg),
            cache=Path(cfg.dataset_prepared_path or scratch / "prepared"),
        )
        run = run_of(made, section, tokenizer, encoding, batch_of(cfg))
        rows: Dataset = made.train
        places: dict[str, str | None] = {MIX: "."}
        if made.packing is not None:
            rows = _packed_rows(made.train, scratch / "packed")
            # A packed row is not one of the mix: `explain` reads the encoded sources.
            kept, prepared = cfg.dataset_prepared_path, made.prepared
            places = {AGENT: folder_of(prepared.agent), GENERAL: folder_of(prepared.general)}
            places = places if kept else {}
        return write_build(out, scratch, rows, run, str(cfg.tokenizer_config or ""), places)


def _packed_rows(rows: Dataset, folder: Path) -> Dataset:
    """Packed rows as they are trained on, which a run puts together as it reads them."""
    from datasets import Dataset, Features, List, Value

    whole = List(Value("int32"))
    features = Features({"input_ids": whole, "labels": whole, "seq_lengths": whole})

    def generate() -> Iterator[dict[str, Any]]:
        for row in rows:
            yield {name: row[name] for name in features}

    made = Dataset.from_generator(generate, features=features, cache_dir=str(folder))
    assert isinstance(made, Dataset)
    return made
