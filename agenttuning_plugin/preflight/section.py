"""Check a section alone, for a trainer whose settings are given on the command line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agenttuning_plugin.config.findings import Finding, errors_in
from agenttuning_plugin.config.section import AgentTuningConfig
from agenttuning_plugin.estimates.devices import Device
from agenttuning_plugin.estimates.shape import Method, TrainingShape
from agenttuning_plugin.evaluation.model_loading import load_tokenizer
from agenttuning_plugin.preflight.device import Hardware
from agenttuning_plugin.preflight.planned import PlannedRun, check_run
from agenttuning_plugin.preflight.report import Report
from agenttuning_plugin.training_data.settings import RunSettings, holdout_of
from dataset_builders.errors import AgentTuningError
from dataset_builders.manifest.records import Batch
from dataset_builders.masks.template_variables import set_template_variables
from dataset_builders.mixing.preparation import Encoding
from dataset_builders.stdio import silenced
from dataset_builders.storage import CACHE


@dataclass(frozen=True, slots=True)
class GivenSettings:
    """Trainer settings from the command line.

    Attributes:
        model: Folder or hub id of the model.
        max_length: Longest row in tokens; with packing, the length of each packed row.
        micro_batch: Rows of one forward pass of one process.
        accumulation: Forward passes of a process in a step.
        steps: Optimizer steps; none: the section's `num_examples` or `general_passes` decides.
        packing: Whether rows are packed.
        processes: Data-parallel processes.
        method: All weights, LoRA or QLoRA, for the estimates.
        device: Device that training will run on; none: the one found here.
        seed: Seed of the order, unless the section names one.
    """

    model: str
    max_length: int
    micro_batch: int = 1
    accumulation: int = 1
    steps: int | None = None
    packing: bool = False
    processes: int = 1
    method: Method = "full"
    device: Device | None = None
    seed: int = 42


def section_report(path: Path, given: GivenSettings, *, full: bool = False) -> Report:
    """Check a section's data, rows and evaluators as `TrainingRun` would make them.

    Args:
        path: A YAML file with the section `agenttuning`; other keys are ignored.
        given: Settings of the trainer.
        full: Whether to read and encode all data.

    Returns:
        Findings and figures.
    """
    report = Report(str(path), full)
    with silenced():
        try:
            section = AgentTuningConfig.from_yaml(path)
        except AgentTuningError as error:
            report.add("recipe", errors_in("recipe", [" ".join(str(error).split())]))
            return report
        report.add("recipe", [Finding("section", f"agenttuning: eta {section.eta}")])
        tokenizer: Any = None
        try:
            tokenizer = load_tokenizer(given.model, section.chat_template)
            set_template_variables(tokenizer, section.chat_template_kwargs)
        except AgentTuningError as error:
            report.add("data", errors_in("tokenizer", [" ".join(str(error).split())]))
        settings = _settings(section, given)
        check_run(PlannedRun(section, tokenizer, settings, _hardware(given)), report)
    return report


def _settings(section: AgentTuningConfig, given: GivenSettings) -> RunSettings:
    return RunSettings(
        Encoding(max_length=given.max_length, holdout=holdout_of(section)),
        Batch(given.micro_batch, given.accumulation, given.processes),
        given.steps,
        given.seed,
        (CACHE / "prepared").expanduser(),
        given.max_length if given.packing else None,
        base_model=given.model,
    )


def _hardware(given: GivenSettings) -> Hardware:
    shape = TrainingShape(
        method=given.method,
        micro_batch=given.micro_batch,
        sequence_len=given.max_length,
        accumulation=given.accumulation,
        packed=given.packing,
        strategy="none" if given.processes < 2 else "ddp",
        world=given.processes,
    )
    return Hardware(given.model, lambda kind: replace(shape, device=kind), False, given.device)
