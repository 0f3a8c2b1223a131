"""Data of a training run, from the recipe's section; used by Axolotl, TRL and `build`."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agenttuning_plugin.config.recipe import AgentTuningSection
from agenttuning_plugin.training_data.adapter_precision import restore_adapter_precision
from agenttuning_plugin.training_data.built_mix import RUN_REPORT, BuiltMix
from agenttuning_plugin.training_data.callbacks import make_callbacks
from agenttuning_plugin.training_data.collator import PackedCollator
from agenttuning_plugin.training_data.encoded_sources import load_encoded, resolve_sources
from agenttuning_plugin.training_data.made_sources import context_of, make_sources
from agenttuning_plugin.training_data.packed_dataset import pack_mix
from agenttuning_plugin.training_data.run_length import steps_of_passes
from agenttuning_plugin.training_data.settings import RunSettings, plan_of, settings_of
from agenttuning_plugin.training_data.trainer_checks import check_trainer
from dataset_builders.encoding.lengths import LengthPolicy
from dataset_builders.errors import ConfigError
from dataset_builders.masks.chat_templates import check_tokenizer, load_template
from dataset_builders.masks.template_variables import set_template_variables
from dataset_builders.mixing.mixes import mix
from dataset_builders.mixing.packed_order import Packing
from dataset_builders.mixing.planning import Plan
from dataset_builders.mixing.preparation import EncodedSources, report_lines

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback, TrainingArguments

LOG = logging.getLogger("axolotl.agenttuning")

BEFORE_BUILD: ContextVar[
    Callable[[TrainingRun, AgentTuningSection, RunSettings, Any], tuple[Any, RunSettings]] | None
] = ContextVar("before_build", default=None)
"""Called with a run, its section, settings and trainer arguments before its data are built; returns
the section and settings to build. Set by `agenttuning check SCRIPT`, none in training."""


class TrainingRun(BuiltMix):
    """Data of a training run: rows, holdout, collator, number of steps, manifest and report.

    Sources are located, hashed, read and encoded once, or their rows are taken from the cache.
    With TRL: make it before the trainer, give the trainer `train_dataset`, `data_collator` and
    `tokenizer`, and then call `attach(trainer)`. Without `max_steps` in the arguments it sets
    them to `steps`; it seeds torch, so that an adapter's initial weights are the seed's.

    Attributes:
        config: The recipe's section.
        steps: Optimizer steps that the run takes.
        end_of_turn: Tokens beside eos that end a turn.

    Args:
        config: The recipe's section.
        tokenizer: A fast tokenizer; gets the section's chat template and its variables.
        args: The trainer's arguments; `RunSettings` from the adapter of another trainer, which
            needs nothing of what follows.
        max_length: Longest row in tokens; with packing, the length of each packed row.
        packing: Whether to pack the rows.
        length_policy: What happens to longer conversations, see `Encoder`; none: chat is split,
            agent data shortened.
        end_of_turn: See above.
        cache: Folder of encoded sources, by default `~/.cache/agenttuning/prepared`.

    Raises:
        ConfigError: The tokenizer cannot be used, a setting is out of range, neither steps nor a
            number of examples is known, or they disagree; or the plan does not fit the rows.
        DataError: A source cannot be read, or no row of it is usable.
        SourceNotFoundError: A path or hub id does not exist.
    """

    def __init__(
        self,
        config: AgentTuningSection,
        tokenizer: Any,
        args: TrainingArguments | RunSettings,
        *,
        max_length: int | None = None,
        packing: bool = False,
        length_policy: LengthPolicy | None = None,
        end_of_turn: Sequence[str] = (),
        cache: str | Path | None = None,
    ) -> None:
        if isinstance(args, RunSettings):
            self._build(config, tokenizer, args)
            return
        settings = settings_of(
            args,
            config,
            max_length=max_length,
            packing=packing,
            length_policy=length_policy,
            end_of_turn=end_of_turn,
            cache=cache,
        )
        if config.chat_template:
            tokenizer.chat_template = load_template(config.chat_template)
        set_template_variables(tokenizer, config.chat_template_kwargs)
        if (before_build := BEFORE_BUILD.get()) is not None:
            self.tokenizer = tokenizer
            config, settings = before_build(self, config, settings, args)
        self._build(config, tokenizer, settings)
        if args.max_steps < 1:
            args.max_steps = self.steps
        if args.should_log:
            self.log_losses()
        from transformers import set_seed

        # TRL before 1.15 does so only after it has drawn an adapter's initial weights.
        set_seed(args.seed)

    def _build(self, config: AgentTuningSection, tokenizer: Any, settings: RunSettings) -> None:
        by_examples = config.num_examples is not None and not settings.packed_length
        if settings.steps is None and not by_examples and config.general_passes is None:
            # `check_recipe` tells a recipe's author more; other callers come here first.
            raise ConfigError("max_steps: missing, expected a number of steps")
        plan = plan_of(config, settings)
        check_tokenizer(tokenizer, getattr(tokenizer, "name_or_path", "") or "tokenizer")
        read = make_sources(config, context_of(settings, tokenizer))
        sources = resolve_sources(read, plan, settings.encoding)
        prepared = load_encoded(
            sources, plan, tokenizer, settings.encoding, settings.cache, config.processes
        )
        if settings.steps is None and config.general_passes is not None:
            batch, length = settings.batch.size, settings.packed_length
            settings = replace(settings, steps=steps_of_passes(config, prepared, batch, length))
        mixed = _mixed if settings.packed_length is None else _packed
        self.steps, rows = mixed(config, plan, prepared, settings)
        super().__init__(
            **rows,
            prepared=prepared,
            sources=sources,
            tokenizer=tokenizer,
            encoding=settings.encoding,
            batch=settings.batch,
            loss_normalization=config.loss_normalization,
        )
        self.config = config
        self.end_of_turn = settings.encoding.end_of_turn

    @property
    def data_collator(self) -> PackedCollator | None:
        """The collator of packed rows; None without packing: the trainer's own."""
        return PackedCollator(self.tokenizer) if self.packing else None

    def attach(self, trainer: Trainer) -> None:
        """Add evaluators, loss normalization and checks to a trainer; write manifest and report.

        A QLoRA adapter that TRL has cast to bfloat16 is put back into float32.

        Raises:
            ConfigError: The trainer would not train on this run's rows as they are and in their
                order; or see `EvaluatorCallback`.
        """
        check_trainer(trainer, self, self.steps)
        restore_adapter_precision(trainer)
        if self.packing:
            # Made before the model: only its attention says whether rows are joined.
            trainer.data_collator = PackedCollator.for_model(trainer.model, self.tokenizer)
        for callback in self.callbacks(trainer):
            trainer.add_callback(callback)
        if trainer.is_world_process_zero():
            self.write_to(Path(str(trainer.args.output_dir)))

    def callbacks(self, trainer: Trainer) -> list[TrainerCallback]:
        """Return the callbacks that `attach` adds to a trainer; see `make_callbacks`."""
        return make_callbacks(
            self.config,
            trainer,
            holdout=self.eval_dataset,
            packed=self.packing is not None,
            end_of_turn=self.end_of_turn,
            mix=self,
        )

    def log_losses(self) -> None:
        """Log the counts of read and dropped records, as a warning if many are lost."""
        for line in report_lines(self.prepared.report):
            LOG.info("%s", line)
        for line in self.warnings:
            LOG.warning("%s", line)

    def log_mix(self) -> None:
        """Log the composition of the training data."""
        LOG.info(
            "mix: %(examples)d examples, %(share_of_examples).4f of them agent data "
            "(%(share_of_tokens).4f of tokens, %(share_of_trained_tokens).4f of trained ones), "
            "%(agent_passes).2f passes over agent and %(general_passes).2f over general data, "
            "eta %(eta)s in %(eta_unit)ss, seed %(seed)d",
            self.mix_facts,
        )
        if self.loss:
            LOG.info(
                "loss: normalized by %(normalization)s, so that agent data have %(agent_share).4f "
                "of it",
                self.loss,
            )

    def write_to(self, folder: Path) -> None:
        """Write manifest, report and page into the run's output folder, created if missing."""
        folder.mkdir(parents=True, exist_ok=True)
        self.write(folder, folder.resolve().name, RUN_REPORT, self.stored_sides())


def _mixed(
    config: AgentTuningSection, plan: Plan, prepared: EncodedSources, settings: RunSettings
) -> tuple[int, dict[str, Any]]:
    """Steps of a run without packing, and its rows with what they depend on."""
    wanted, steps, batch = config.num_examples, settings.steps, settings.batch.size
    if steps is None:
        assert wanted is not None  # _build has checked it
        size, steps = wanted, math.ceil(wanted / batch)
    else:
        _check_size(wanted, steps * batch, steps)
        size = wanted or steps * batch
    rows, planned = mix(prepared, plan, seed=_seed(config, settings), num_examples=size)
    return steps, {"train_dataset": rows, "planned": planned, "plan": plan}


def _packed(
    config: AgentTuningSection, plan: Plan, prepared: EncodedSources, settings: RunSettings
) -> tuple[int, dict[str, Any]]:
    """The same on packed rows: the mix's examples, as many as fill them."""
    steps, length, batch = settings.steps, settings.packed_length, settings.batch.size
    assert steps is not None
    assert length is not None
    packing = Packing(length, batch, steps * batch, settings.window)
    made = pack_mix(
        prepared,
        replace(plan, eta=config.eta),
        packing,
        seed=_seed(config, settings),
        stages=[(stage.from_step * batch, stage.eta) for stage in config.eta_stages],
    )
    _check_size(config.num_examples, len(made.order.bins.positions), steps)
    rows: dict[str, Any] = {"train_dataset": made.rows, "planned": made.order.planned}
    return steps, rows | {
        "plan": made.order.plan,
        "packing": packing,
        "packing_facts": made.report,
    }


def _seed(config: AgentTuningSection, settings: RunSettings) -> int:
    return settings.seed if config.mix_seed is None else config.mix_seed


def _check_size(wanted: int | None, needed: int, steps: int) -> None:
    if wanted is not None and wanted < needed:
        raise ConfigError(
            f"agenttuning.num_examples: found {wanted}, expected at least {needed}: max_steps "
            f"{steps} takes that many, and the trainer would start over with the same order"
        )
