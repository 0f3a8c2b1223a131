"""Trainer settings that a run's data depend on: batch, length, seed, cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agenttuning_plugin.config.recipe import AgentTuningSection
from dataset_builders.encoding.lengths import LengthPolicy
from dataset_builders.errors import ConfigError
from dataset_builders.manifest.records import Batch
from dataset_builders.mixing.eta_schedule import QuotaStage
from dataset_builders.mixing.order import BLOCK
from dataset_builders.mixing.packing import WINDOW
from dataset_builders.mixing.planning import Plan
from dataset_builders.mixing.preparation import Encoding
from dataset_builders.sources.inputs import source_weights
from dataset_builders.storage import CACHE

if TYPE_CHECKING:
    from transformers import TrainingArguments


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Settings of a run's data that come from the trainer, not from the recipe's section.

    Attributes:
        encoding: Settings of the rows.
        batch: How the trainer cuts the stream into steps; with packing, packed rows.
        steps: Optimizer steps; none: the section's `num_examples` or `general_passes` decides.
        seed: Seed of the order, unless the section names one.
        cache: Folder of encoded sources; none: they are held in memory and not stored.
        packed_length: Tokens of a packed row, or none without packing.
        window: Examples that are packed together.
        base_model: Folder or hub id of the model that is trained, for sources that it writes;
            none: the tokenizer's.
        made: Folder of prepared data that made sources lie in; none: `cache`.
    """

    encoding: Encoding
    batch: Batch
    steps: int | None
    seed: int
    cache: Path | None
    packed_length: int | None = None
    window: int = WINDOW
    base_model: str | None = None
    made: Path | None = None


def settings_of(
    args: TrainingArguments,
    section: AgentTuningSection,
    *,
    max_length: int | None,
    packing: bool,
    length_policy: LengthPolicy | None,
    end_of_turn: Sequence[str],
    cache: str | Path | None,
) -> RunSettings:
    """Return a run's settings from a transformers Trainer's, such as TRL's; see `TrainingRun`.

    Raises:
        ConfigError: `max_length` is missing.
    """
    if max_length is None:
        raise ConfigError("max_length: missing, expected the longest row in tokens")
    encoding = Encoding(
        max_length=max_length,
        policy=length_policy,
        end_of_turn=tuple(end_of_turn),
        holdout=holdout_of(section),
        agent_holdout=section.agent_holdout if section.agent else 0,
    )
    return RunSettings(
        encoding,
        batch_of(args),
        args.max_steps if args.max_steps > 0 else None,
        args.seed,
        Path(cache or CACHE / "prepared").expanduser(),
        max_length if packing else None,
    )


def batch_of(args: TrainingArguments) -> Batch:
    """Return how a transformers Trainer divides the stream into steps."""
    return Batch(
        micro=args.train_batch_size,  # of all devices of a process
        accumulation=args.gradient_accumulation_steps,
        world=args.world_size,
    )


def holdout_of(section: AgentTuningSection) -> int:
    """Return the number of general conversations held out of training."""
    return section.holdout if section.general else 0


def plan_of(section: AgentTuningSection, settings: RunSettings) -> Plan:
    """Return the section's plan of a mix; stages of eta begin at the examples of their steps."""
    batch = settings.batch.size
    stages = [QuotaStage(0, section.eta)]
    stages += [QuotaStage(stage.from_step * batch, stage.eta) for stage in section.eta_stages]
    return Plan(
        eta=tuple(stages) if section.eta_stages else section.eta,
        unit=section.eta_unit,
        mode=section.sampling,
        task_weights=section.task_weights,
        gpt4_share=section.gpt4_share,
        agent_weights=source_weights(section.agent, "agent"),
        general_weights=source_weights(section.general, "general"),
        # With packing a batch holds an unknown number of examples, so the share is held over
        # the default block.
        block=BLOCK if settings.packed_length is not None else batch,
    )
