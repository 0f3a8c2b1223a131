"""Check the sources that a run would make before training, without making any."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agenttuning_plugin.config.findings import Finding, guarded
from agenttuning_plugin.config.recipe import AgentTuningSection
from agenttuning_plugin.console import duration
from agenttuning_plugin.preflight.report import Report
from agenttuning_plugin.preflight.sample import is_here
from agenttuning_plugin.training_data.made_sources import (
    PlannedSource,
    context_of,
    has_unmade,
    plan_sources,
    stand_ins,
)
from agenttuning_plugin.training_data.settings import RunSettings


def check_made(
    section: AgentTuningSection, tokenizer: Any, settings: RunSettings | None, report: Report
) -> AgentTuningSection:
    """Report what a run would make first, and return the section that a check reads instead.

    Args:
        section: The recipe's section.
        tokenizer: The run's tokenizer, or None if it cannot be loaded here.
        settings: Settings of the rows, or None if they cannot be determined here.
        report: Receives the findings, and the figures `made`.

    Returns:
        The section with made folders, and a stand-in for each source that is not made yet.
    """
    if not has_unmade(section):
        return section
    read = [stand_ins(section)]

    def step() -> Iterator[Finding]:
        fetched = [spec.path for spec in read[0].general + read[0].agent if not is_here(spec)]
        if tokenizer is None or settings is None or fetched:
            detail = "sources are made when training starts; their requests were not counted"
            yield Finding("made sources", detail)
            return
        read[0], found = plan_sources(section, context_of(settings, tokenizer))
        report.facts["made"] = [_facts(each) for each in found]
        for each in found:
            yield Finding(f"{each.side} source", _line(each))

    report.add("data", guarded("made sources", step))
    return read[0]


def _line(source: PlannedSource) -> str:
    plan = source.plan
    if source.made:
        return f"{source.kind}: already made, no request is sent: {plan.detail}"
    time = "" if plan.seconds is None else f", {duration(plan.seconds)} at most (estimate)"
    rows = "; the rows below are those of a stand-in"
    return f"{source.kind}: made when training starts: {plan.detail}{time}{rows}"


def _facts(source: PlannedSource) -> dict[str, Any]:
    plan = source.plan
    return {
        "side": source.side,
        "kind": source.kind,
        "made": source.made,
        "requests": plan.requests,
        "seconds": plan.seconds,
    }
