"""Check the data of a planned run, whichever trainer it is for, and build its rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from agenttuning_plugin.config.findings import Finding, guarded
from agenttuning_plugin.config.recipe import AgentTuningSection
from agenttuning_plugin.preflight.consistency import check_tool_form
from agenttuning_plugin.preflight.data import Side, check_data, check_sample
from agenttuning_plugin.preflight.device import Hardware, check_hardware
from agenttuning_plugin.preflight.evaluators import check_evaluators
from agenttuning_plugin.preflight.made import check_made
from agenttuning_plugin.preflight.mix import describe
from agenttuning_plugin.preflight.report import Report
from agenttuning_plugin.preflight.sample import Part, can_sample, everything, sampled
from agenttuning_plugin.preflight.saving import Saving, check_saving
from agenttuning_plugin.preflight.template import check_template
from agenttuning_plugin.training_data.run import TrainingRun
from agenttuning_plugin.training_data.settings import RunSettings


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run as its recipe or script describes it.

    Attributes:
        section: The section of settings.
        tokenizer: The run's tokenizer with its template and variables, or none if it cannot be
            loaded here: then no row is made.
        settings: Settings of the rows, or none likewise.
        hardware: What it needs of a device; none: nothing is estimated.
        saving: What it writes; none: not checked.
        built: The run, if its rows are made already, and what was read of each source.
    """

    section: AgentTuningSection
    tokenizer: Any = None
    settings: RunSettings | None = None
    hardware: Hardware | None = None
    saving: Saving | None = None
    built: tuple[TrainingRun, list[Part]] | None = None


def check_run(planned: PlannedRun, report: Report) -> None:
    """Check a planned run: its data and rows, memory, time, output folder and evaluators.

    Args:
        planned: The run.
        report: Receives findings and figures.
    """
    run = check_planned(planned, report)
    steps = planned.settings.steps if planned.settings else None
    steps = run.steps if run else steps
    if planned.hardware:
        report.add("device", check_hardware(planned.hardware, steps, report.facts))
    if planned.saving:
        report.add("training", check_saving(planned.saving, steps, report.facts))
    report.add("evaluators", check_evaluators(planned.section))


def check_planned(planned: PlannedRun, report: Report) -> TrainingRun | None:
    """Check the data of a run and build its rows.

    Args:
        planned: The run.
        report: Receives findings and figures.

    Returns:
        The run, built on all data or on a sample, or none if it could not be built.
    """
    tokenizer, settings = planned.tokenizer, planned.settings
    section = check_made(planned.section, tokenizer, settings, report)
    planned = replace(planned, section=section)
    agent, general = Side("agent"), Side("general")
    report.add("data", check_data(section, agent, general, fetch=report.full))
    if tokenizer is None or settings is None:
        return None
    encoding = settings.encoding
    read = [*agent.sample[:1], *general.sample[:1]]
    report.add("data", guarded("template", lambda: check_template(tokenizer, encoding, read)))
    report.add("data", guarded("tool calls", lambda: check_tool_form(section, tokenizer, encoding)))
    if planned.built is not None:
        report.add("data", describe(*planned.built, report))
        return planned.built[0]
    if report.ok and (report.full or can_sample(section)):
        built: list[TrainingRun] = []
        report.add("data", guarded("rows", lambda: _rows(planned, report, built)))
        return built[0] if built else None
    for side in (agent, general):
        if side.sample:
            what = f"{side.name} rows"
            report.add("data", guarded(what, lambda: check_sample(side, tokenizer, encoding)))  # noqa: B023
    return None


def _rows(planned: PlannedRun, report: Report, built: list[TrainingRun]) -> Iterator[Finding]:
    """Build the run's rows, from everything or from a sample of each source."""
    section, settings = planned.section, planned.settings
    assert settings is not None
    if report.full:
        parts = everything(section)
    else:
        section, parts = sampled(section)
        settings = replace(settings, cache=None)
    run = TrainingRun(section, planned.tokenizer, settings)
    built.append(run)
    yield from describe(run, parts, report)
