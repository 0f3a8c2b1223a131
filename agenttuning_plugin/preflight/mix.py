"""Figures of the rows that a run would train on: shares, loss, steps and passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from agenttuning_plugin.config.findings import Finding, in_group
from agenttuning_plugin.preflight.report import Report
from agenttuning_plugin.preflight.sample import Part
from agenttuning_plugin.training_data.run import TrainingRun
from dataset_builders.mixing.losses import loss_warnings
from dataset_builders.mixing.preparation import LENGTH_DEFAULTS

MANY_PASSES = 60
"""Passes over agent data from which a warning is given: above the paper's own 25 to 50, which its
settings (2,000 steps of 64 packed rows of 4,096 tokens, eta 0.2) make of AgentInstruct."""

_UNITS = {"examples": "example", "tokens": "token", "trained_tokens": "trained_token"}


def describe(run: TrainingRun, parts: Sequence[Part], report: Report) -> Iterator[Finding]:
    """Report on the rows of a run.

    Args:
        run: The run, built on all data or on a sample of it.
        parts: What was read of each source.
        report: What was found before; receives the figures `sampled`, `steps`, `mix`, `loss`,
            `sources` and `rows`.
    """
    facts = report.facts
    figures = {**run.mix_facts, **(run.packing_facts or {})}
    shares = {unit: figures[f"share_of_{unit}"] for unit in _UNITS}
    passes = source_passes(run, parts)
    facts["sampled"] = not all(part.whole for part in parts)
    facts["steps"] = run.steps
    facts["mix"] = {"eta": figures_eta(run), "eta_unit": run.plan.unit, "agent_share": shares}
    facts["loss"] = run.loss
    facts["sources"] = passes
    facts["rows"] = {
        side: {**run.prepared.report[side]["tokens"], "samples": None, "lengths": None}
        for side in ("agent", "general")
        if side in run.prepared.report
    }
    yield from in_group("data", _rows(run, report))
    yield from in_group("mix", _shares(run, shares, facts["sampled"]))
    yield from in_group("mix", _passes(run, passes))
    yield from in_group("training", _steps(run, figures))


def figures_eta(run: TrainingRun) -> Any:
    """Return the requested share of agent data: a number, or pairs of a step and a number."""
    stages = [[stage.from_step, stage.eta] for stage in run.config.eta_stages]
    return [[0, run.config.eta], *stages] if stages else run.config.eta


def _rows(run: TrainingRun, found: Report) -> Iterator[Finding]:
    report, limit = run.prepared.report, run.encoding.max_length if run.encoding else None
    parts = [each for each in found.facts["sources"] if not each["whole"]]
    sampled = {each["side"] for each in parts}
    for side in ("agent", "general"):
        mark = " (sample)" if side in sampled else ""
        if side in report:
            yield Finding(f"{side} rows", report[side]["tokens"]["summary"] + mark)
    yield from _too_long(run)
    known = {finding.what for finding in found.of("warning")}
    for line in loss_warnings(report, limit):
        side = line.partition(":")[0]
        if "records cannot be used" not in line or f"{side} source" not in known:
            yield Finding(f"{side} rows", line, "warning")


def _too_long(run: TrainingRun) -> Iterator[Finding]:
    """Say what happens to conversations that are longer than a row."""
    assert run.encoding is not None
    found = []
    for side, default in LENGTH_DEFAULTS.items():
        tokens = run.prepared.report.get(side, {}).get("tokens")
        if tokens is None:
            continue
        dropped = sum(
            tokens["dropped"].get(why, 0) for why in ("too_long", "no_trained_token_left")
        )
        number = tokens["split"] + tokens["shortened"] + tokens["truncated"] + dropped
        policy = run.encoding.policy or default
        found.append(f"{side} {number:,} ({policy}{f', {dropped:,} dropped' if dropped else ''})")
    limit = run.encoding.max_length
    yield Finding("too long", f"conversations above {limit:,} tokens: {'; '.join(found)}")


def _shares(run: TrainingRun, shares: dict[str, float], sampled: bool) -> Iterator[Finding]:
    stages = "".join(f", {s.eta} from step {s.from_step}" for s in run.config.eta_stages)
    wanted = f"{run.config.eta}{stages} in {run.plan.unit.replace('_', ' ')}s"
    detail = (
        f"{wanted}; realised {shares['examples']:.1%} of examples, {shares['tokens']:.1%} of "
        f"tokens, {shares['trained_tokens']:.1%} of trained tokens"
    )
    yield Finding("eta", detail + (" (sample)" if sampled else ""))
    if run.loss:
        detail = f"{run.loss['agent_share']:.1%} of it is agent data, normalized by "
        yield Finding("loss", detail + run.loss["normalization"])
    for note in run.planned.notes:
        yield Finding("mix", note)


def source_passes(run: TrainingRun, parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Return for each source its size and how often a run passes over it.

    Args:
        run: The run.
        parts: What was read of each source.

    Returns:
        JSON-ready: `side`, `path`, `records` (none: unknown), `exact`, `rows` read, `drawn`
        (examples that the run takes of it) and `passes`, none if the size is not known.
    """
    found: list[dict[str, Any]] = []
    order, times = run.planned.order, run.planned.exposures
    halves = {"agent": times[: order.num_agent], "general": times[order.num_agent :]}
    for part in parts:
        index = getattr(run.prepared, f"{part.side}_index")
        reports = run.prepared.report.get(part.side, {}).get("sources", [])
        drawn = halves[part.side]
        if index is None or not len(drawn) or part.entry >= len(reports):
            continue
        own = index["entry"].to_numpy() == part.entry
        read, rows = reports[part.entry]["read"], int(own.sum())
        whole = part.whole or not reports[part.entry]["limited"]
        records = read if whole else part.records
        held = _held_out(run) * rows / len(drawn) if part.side == "general" else 0.0
        total: float | None = rows
        if not whole:
            total = None if records is None else (rows + held) * records / max(1, read) - held
        taken = int(drawn[own].sum())
        found.append(
            {
                "side": part.side,
                "path": part.path,
                "records": records,
                "exact": whole or part.exact,
                "rows": rows,
                "drawn": taken,
                "passes": round(taken / total, 2) if total else None,
                "whole": whole,
            }
        )
    return found


def _held_out(run: TrainingRun) -> int:
    return 0 if run.eval_dataset is None else len(run.eval_dataset)


def _passes(run: TrainingRun, sources: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    for source in sources:
        size, passes = source["records"], source["passes"]
        about = "" if source["exact"] else "about "
        known = "an unknown number of" if size is None else f"{about}{size:,}"
        often = "unknown" if passes is None else f"{passes:,.1f}"
        detail = f"{often} over {source['path']} ({known} records"
        detail += ")" if source["whole"] else ", estimated)"
        what = f"{source['side']} passes"
        if source["side"] == "agent" and passes is not None and passes > MANY_PASSES:
            detail += (
                f", above {MANY_PASSES} (paper: 25 to 50): more trajectories, fewer steps or a "
                "smaller eta"
            )
            yield Finding(what, detail, "warning")
        else:
            yield Finding(what, detail)


def _steps(run: TrainingRun, figures: dict[str, Any]) -> Iterator[Finding]:
    assert run.batch is not None
    batch = run.batch
    rows = "rows"
    if run.packing:
        fill = figures["fill"]
        rows = f"packed rows of {run.packing.capacity:,} tokens, {fill:.0%} full"
    size = f"{batch.size} ({batch.micro} x {batch.accumulation} x {batch.world})"
    detail = f"{run.steps:,} of {size} {rows}: {figures['tokens'] / 1e6:,.1f} M tokens"
    yield Finding("steps", detail)
