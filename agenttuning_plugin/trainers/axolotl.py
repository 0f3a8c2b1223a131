"""The Axolotl plugin: thin hooks around the shared parts.

A plugin that loads data is responsible for all of it in Axolotl: tokens, labels, length
policy, packing columns, evaluation set and number of steps all come from here.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from axolotl.common.datasets import TrainDatasetMeta
from axolotl.integrations.base import BasePlugin

from agenttuning_plugin.config.overrides import apply_overrides, check_command_line
from agenttuning_plugin.config.references import resolve_references
from agenttuning_plugin.config.rules import REPLACED_KEYS, check_recipe, section_of, uses_plugin
from agenttuning_plugin.reports.model_card import write_run_card
from agenttuning_plugin.trainers.axolotl_adapter import drawn_weights, restore_weights
from agenttuning_plugin.trainers.axolotl_keys import unknown_keys, unknown_nested_keys
from agenttuning_plugin.trainers.axolotl_settings import (
    cpu_arguments,
    fill_in,
    is_filled_in,
    run_settings,
    seed_of,
)
from agenttuning_plugin.training_data.callbacks import make_callbacks
from agenttuning_plugin.training_data.collator import (
    PackedCollator,
    boundaries_of,
    needs_joined_rows,
)
from agenttuning_plugin.training_data.packed_dataset import AXOLOTL_ARGUMENTS
from agenttuning_plugin.training_data.row_order import check_row_order
from agenttuning_plugin.training_data.run import TrainingRun
from dataset_builders.errors import AgentTuningError
from dataset_builders.masks.template_variables import set_template_variables

LOG = logging.getLogger("axolotl.agenttuning")


class AgentTuningPlugin(BasePlugin):  # type: ignore[misc]  # axolotl is untyped
    """eta-mixed data with exact masks, and evaluators inside training."""

    def __init__(self) -> None:
        super().__init__()
        self._run: TrainingRun | None = None
        self._boundaries: tuple[str, ...] = ()
        self._joins_rows = False
        self._drawn: dict[str, Any] = {}

    def register(self, cfg: Any) -> None:
        """Check the recipe before Axolotl does, and set what the mix implies.

        Raises:
            ConfigError: A setting contradicts the plugin's, or is misspelt; names each.
        """
        if not uses_plugin(cfg):
            return
        _say_errors_in_one_line()
        if is_filled_in(cfg):
            return  # a Ray worker registers again, with the recipe that the driver validated
        check_command_line(sys.argv)
        apply_overrides(cfg)
        resolve_references(cfg, Path(cfg.get("axolotl_config_path") or "recipe.yaml").parent)
        unknown = unknown_keys(cfg, ignored=REPLACED_KEYS)
        check_recipe(cfg, [key.message for key in unknown if key.misspelt])
        for line in [*(key.message for key in unknown), *unknown_nested_keys(cfg)]:
            LOG.warning("%s", line)
        fill_in(cfg)

    def get_input_args(self) -> str:
        """Return the import path of the section's model."""
        return "agenttuning_plugin.config.recipe.AgentTuningArgs"

    def load_datasets(self, cfg: Any, preprocess: bool = False) -> TrainDatasetMeta | None:
        """Build the run's data, from the cache if possible.

        Raises:
            AgentTuningError: See `agenttuning_plugin.training_data.run.TrainingRun`.
        """
        if not uses_plugin(cfg):
            return None
        from axolotl.common.const import DEFAULT_DATASET_PREPARED_PATH
        from axolotl.loaders import load_tokenizer

        section, tokenizer = section_of(cfg), load_tokenizer(cfg)
        set_template_variables(tokenizer, section.chat_template_kwargs)
        cache = Path(cfg.dataset_prepared_path or DEFAULT_DATASET_PREPARED_PATH)
        self._run = run = TrainingRun(section, tokenizer, run_settings(cfg, section, cache))
        if cfg.local_rank in (None, 0):
            run.log_losses()
            if not preprocess:
                run.log_mix()
                run.write_to(Path(cfg.output_dir))
        # Axolotl counts tokens and packing efficiency of its own data only.
        cfg.total_num_tokens = None
        return TrainDatasetMeta(
            train_dataset=run.train_dataset,
            eval_dataset=run.eval_dataset,
            total_num_steps=run.steps,
        )

    def pre_model_load(self, cfg: Any) -> None:
        """Seed the random initialisation during loading, such as an adapter's initial weights.

        Axolotl leaves seeding to the trainer, which is created after them.
        """
        if not uses_plugin(cfg):
            return
        from transformers import set_seed

        set_seed(seed_of(cfg))

    def post_lora_load(self, cfg: Any, model: Any) -> None:
        """Keep an adapter's initial weights, which Axolotl may draw again."""
        if uses_plugin(cfg):
            self._drawn = drawn_weights(cfg, model)

    def post_model_load(self, cfg: Any, model: Any) -> None:
        """Restore an adapter's initial weights; record the boundaries that packed rows need."""
        if not uses_plugin(cfg):
            return
        restore_weights(model, self._drawn)
        self._drawn = {}
        self._boundaries = boundaries_of(model)
        self._joins_rows = needs_joined_rows(model)

    def get_training_args(self, cfg: Any) -> dict[str, Any]:
        """Disable Axolotl's own packer, as rows are already packed, and allow bf16 on a CPU."""
        if not uses_plugin(cfg):
            return {}
        arguments: dict[str, Any] = dict(AXOLOTL_ARGUMENTS) if cfg.sample_packing else {}
        return arguments | cpu_arguments(cfg)

    def get_collator_cls_and_kwargs(
        self, cfg: Any, is_eval: bool = False
    ) -> tuple[type[Any], dict[str, Any]] | None:
        """Return the collator of packed rows; the unpacked holdout keeps Axolotl's."""
        if is_eval or not cfg.sample_packing or not uses_plugin(cfg):
            return None
        # As Axolotl does: one long row for kernels that know documents of various lengths.
        joined = bool(cfg.attn_supports_packing) or self._joins_rows
        return PackedCollator, {"flatten": joined, "boundaries": self._boundaries if joined else ()}

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[Any]:
        """Return the callbacks: loss normalization, packing check and evaluators.

        Raises:
            ConfigError: The trainer would not read the mix's rows in their order.
        """
        if not uses_plugin(cfg):
            return []
        check_row_order(trainer)
        section = self._run.config if self._run else section_of(cfg)
        set_template_variables(trainer.processing_class, section.chat_template_kwargs)
        return make_callbacks(
            section,
            trainer,
            holdout=self._run.eval_dataset if self._run else None,
            packed=bool(cfg.sample_packing),
            end_of_turn=tuple(cfg.eot_tokens or ()),
            recipe=str(cfg.axolotl_config_path or ""),
            mix=self._run,
        )

    def post_train(self, cfg: Any, model: Any) -> None:
        """Write the model card; Axolotl calls this again after it has written its own."""
        if uses_plugin(cfg) and cfg.local_rank in (None, 0) and Path(cfg.output_dir).is_dir():
            write_run_card(Path(cfg.output_dir))

    def post_train_unload(self, cfg: Any) -> None:
        """Print base against result and the next commands, after everything is saved."""
        if not uses_plugin(cfg):
            return
        from agenttuning_plugin.console import console
        from agenttuning_plugin.reports.run_end import print_run_end

        print_run_end(cfg, console)


def _say_errors_in_one_line() -> None:
    """Show errors that a user can fix without a traceback."""
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, AgentTuningError):
            print(f"agenttuning: error: {error}", file=sys.stderr)
        else:
            previous(kind, error, trace)

    if getattr(previous, "__module__", "") != __name__:
        sys.excepthook = hook
