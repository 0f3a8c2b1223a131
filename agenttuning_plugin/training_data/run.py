"""A recipe's section to the rows of a run: the part that every trainer adapter shares."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agenttuning_plugin.config.recipe import AgentTuningSection
from agenttuning_plugin.training_data.cache import cache_key, load_or_make
from agenttuning_plugin.training_data.packed_dataset import pack_mix
from agenttuning_plugin.training_data.run_length import steps_of_passes
from dataset_builders.errors import ConfigError
from dataset_builders.masks.chat_templates import check_tokenizer
from dataset_builders.mixing.eta_schedule import EtaStage
from dataset_builders.mixing.mix_report import describe_mix
from dataset_builders.mixing.mixes import mix
from dataset_builders.mixing.order import BLOCK
from dataset_builders.mixing.packed_order import Packing
from dataset_builders.mixing.packing import WINDOW
from dataset_builders.mixing.planning import MixSchedule, Plan
from dataset_builders.mixing.preparation import EncodedSources, Encoding, prepare
from dataset_builders.sources.inputs import resolve_source, source_weights

if TYPE_CHECKING:
    from datasets import Dataset

# Axolotl shows INFO of its own loggers only, and warnings of all.
LOG = logging.getLogger("axolotl.agenttuning")

CACHE_FOLDER = "agenttuning"
"""Folder of encoded sources within the trainer's folder of prepared data."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a run trains on.

    Attributes:
        steps: Optimizer steps, or none if the number of examples decides.
        batch: Rows in a global batch; with packing, packed rows.
        packed_length: Tokens of a packed row, or none without packing.
        window: Examples that are packed together.
    """

    steps: int | None
    batch: int
    packed_length: int | None = None
    window: int = WINDOW


@dataclass(frozen=True, slots=True)
class Mix:
    """Data of a run.

    Attributes:
        train: The eta-mix, a view on the encoded sources.
        holdout: General rows that training does not see, or none.
        steps: Optimizer steps that the run takes.
        prepared: The encoded sources.
        plan: What the mix should be like.
        planned: Which row stands where, and what was done to get it.
        report: What became of every record and conversation, JSON-ready.
        packing: Settings of the packing, or none without.
    """

    train: Dataset
    holdout: Dataset | None
    steps: int
    prepared: EncodedSources
    plan: Plan
    planned: MixSchedule
    report: dict[str, Any]
    packing: Packing | None = None


def load_prepared(
    section: AgentTuningSection, plan: Plan, tokenizer: Any, encoding: Encoding, cache: Path
) -> EncodedSources:
    """Read and encode the section's sources, or take them from the cache.

    Raises:
        ConfigError: The tokenizer cannot be used, or a setting is out of range.
        DataError: A source cannot be read, or no row of it is usable.
        SourceNotFoundError: A path or hub id leads nowhere.
    """
    check_tokenizer(tokenizer, getattr(tokenizer, "name_or_path", "") or "tokenizer")
    # A source without any share is not read, unless the loss is measured on it.
    agent = [resolve_source(s) for s in section.agent] if plan.needs_agent else []
    wants_general = plan.needs_general or encoding.holdout > 0
    general = [resolve_source(s) for s in section.general] if wants_general else []

    def make(folder: Path) -> EncodedSources:
        with _Bars() as progress:
            return prepare(
                agent,
                general,
                plan=plan,
                tokenizer=tokenizer,
                encoding=encoding,
                folder=folder,
                processes=section.processes,
                on_progress=progress,
                quiet=True,  # The warning also applies to a cached entry.
            )

    key = cache_key(agent, general, tokenizer, encoding)
    prepared, found = load_or_make(cache / CACHE_FOLDER, key, make)
    LOG.info("encoded sources %s: %s", "reused" if found else "made", cache / CACHE_FOLDER / key)
    return prepared


def load_mix(
    section: AgentTuningSection,
    tokenizer: Any,
    *,
    encoding: Encoding,
    budget: Budget,
    seed: int,
    cache: Path,
) -> Mix:
    """Make the data of a run.

    Args:
        section: The recipe's section.
        tokenizer: The tokenizer, its chat template in place.
        encoding: Settings of the rows.
        budget: How much the run trains on.
        seed: Seed of the order, unless the section names one.
        cache: The trainer's folder of prepared data.

    Raises:
        ConfigError: Neither steps nor a number of examples is known, or they disagree; the
            plan does not fit the rows; or as `load_prepared`.
        DataError: As `load_prepared`.
        SourceNotFoundError: As `load_prepared`.
    """
    by_examples = section.num_examples is not None and not budget.packed_length
    if budget.steps is None and not by_examples and section.general_passes is None:
        # `check_recipe` tells a recipe's author more; other callers come here first.
        raise ConfigError("max_steps: missing, expected a number of steps")
    prepared = load_prepared(section, plan_of(section, budget), tokenizer, encoding, cache)
    if budget.steps is None and section.general_passes is not None:
        steps = steps_of_passes(section, prepared, budget.batch, budget.packed_length)
        budget = replace(budget, steps=steps)
    seed = seed if section.mix_seed is None else section.mix_seed
    if budget.packed_length is not None:
        return _packed(prepared, section, budget, seed)
    plan, (num_examples, steps) = plan_of(section, budget), _size(section, budget)
    train, planned = mix(prepared, plan, seed=seed, num_examples=num_examples)
    facts = describe_mix(planned, plan, prepared.agent_index, prepared.general_index)
    report = {**prepared.report, "mix": facts, "notes": list(planned.notes)}
    return Mix(train, prepared.holdout, steps, prepared, plan, planned, report)


def plan_of(section: AgentTuningSection, budget: Budget) -> Plan:
    """What a section asks of the mix; stages of eta begin at the examples of their steps."""
    stages = [EtaStage(0, section.eta)]
    stages += [EtaStage(stage.from_step * budget.batch, stage.eta) for stage in section.eta_stages]
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
        block=BLOCK if budget.packed_length is not None else budget.batch,
    )


def _size(section: AgentTuningSection, budget: Budget) -> tuple[int, int]:
    """Number of examples and of optimizer steps."""
    wanted = section.num_examples
    if budget.steps is None:
        assert wanted is not None  # load_mix has checked it
        return wanted, math.ceil(wanted / budget.batch)
    needed = budget.steps * budget.batch
    _check_size(wanted, needed, budget.steps)
    return wanted or needed, budget.steps


def _check_size(wanted: int | None, needed: int, steps: int) -> None:
    if wanted is not None and wanted < needed:
        raise ConfigError(
            f"agenttuning.num_examples: found {wanted}, expected at least {needed}: max_steps "
            f"{steps} takes that many, and the trainer would start over with the same order"
        )


def _packed(
    prepared: EncodedSources, section: AgentTuningSection, budget: Budget, seed: int
) -> Mix:
    """The data of a run on packed rows: the mix's examples, as many as fill them."""
    assert budget.steps is not None
    assert budget.packed_length is not None
    packing = Packing(
        budget.packed_length, budget.batch, budget.steps * budget.batch, budget.window
    )
    made = pack_mix(
        prepared,
        replace(plan_of(section, budget), eta=section.eta),
        packing,
        seed=seed,
        stages=[(stage.from_step * budget.batch, stage.eta) for stage in section.eta_stages],
    )
    plan, planned = made.order.plan, made.order.planned
    _check_size(section.num_examples, len(made.order.bins.positions), budget.steps)
    report = {
        **prepared.report,
        "mix": describe_mix(planned, plan, prepared.agent_index, prepared.general_index),
        "packing": made.report,
        "notes": list(planned.notes),
    }
    return Mix(made.rows, prepared.holdout, budget.steps, prepared, plan, planned, report, packing)


class _Bars:
    """One progress bar per stage, on the terminal that the trainer writes to."""

    def __enter__(self) -> Callable[[str, int], None]:
        from tqdm import tqdm

        self._open: dict[str, Any] = {}

        def progress(stage: str, number: int) -> None:
            if stage not in self._open:
                self._open[stage] = tqdm(desc=stage, unit=" rows")
            self._open[stage].update(number)

        return progress

    def __exit__(self, *_: object) -> None:
        for bar in self._open.values():
            bar.close()
