"""What a mix leaves beside its data or its model: manifest, report and page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from agenttuning_plugin.config.recipe import AgentTuningSection
from agenttuning_plugin.reports.mix.page import render_page
from agenttuning_plugin.reports.mix.samples import sample_rows
from agenttuning_plugin.reports.mix.stats import figures
from agenttuning_plugin.reports.rows import AGENT, GENERAL, folder_of
from agenttuning_plugin.training_data.row_order import check_row_order
from agenttuning_plugin.training_data.run import Mix
from dataset_builders.manifest.records import Batch, Record, Side, make_record
from dataset_builders.manifest.store import write_manifest
from dataset_builders.mixing.losses import loss_warnings
from dataset_builders.mixing.mix_report import describe_mix
from dataset_builders.mixing.packed_order import Packing
from dataset_builders.mixing.planning import MixSchedule, Plan
from dataset_builders.mixing.preparation import EncodedSources, Encoding
from dataset_builders.sources.in_memory import is_dataset
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import ResolvedSource, SourceSpec

RUN_REPORT = "agenttuning_report"
"""Stem of the report's files in the output folder of a training run."""


@dataclass(frozen=True)
class MixRun:
    """A mix and all that it was made from.

    Attributes:
        prepared: The sources.
        planned: The order of the mix, and what was done to get it.
        plan: What it should be like.
        agent: Agent data as given to `prepare`; a source handed over in memory has no path.
        general: General data, likewise.
        tokenizer: The tokenizer, or none if rows are messages.
        encoding: Settings of the rows, or none.
        batch: How the trainer cuts the stream into steps, or none if that is not known.
        packing: What decides on which examples share a packed row, or none.
        packing_facts: What `describe_packing` says, for the report.
        loss_normalization: What the trainer divides a step's loss by, see `LossNormalization`;
            none if that is not known.
    """

    prepared: EncodedSources
    planned: MixSchedule
    plan: Plan
    agent: Any = ()
    general: Any = ()
    tokenizer: Any = None
    encoding: Encoding | None = None
    batch: Batch | None = None
    packing: Packing | None = None
    packing_facts: Mapping[str, Any] | None = None
    loss_normalization: str | None = None

    @cached_property
    def record(self) -> Record:
        """The manifest, but for paths and times."""
        return make_record(
            self.planned.order,
            self.plan,
            agent=self._side("agent", self.agent),
            general=self._side("general", self.general),
            tokenizer=self.tokenizer,
            encoding=self.encoding,
            batch=self.batch,
            packing=None if self.packing is None else self.packing._asdict(),
            loss=self.loss,
        )

    @cached_property
    def mix_facts(self) -> dict[str, Any]:
        """What `describe_mix` says."""
        prepared = self.prepared
        return describe_mix(self.planned, self.plan, prepared.agent_index, prepared.general_index)

    @property
    def loss(self) -> dict[str, Any] | None:
        """What a step's loss is divided by, and the share of it that agent data have."""
        shares = (self.packing_facts or self.mix_facts).get("share_of_loss")
        if self.loss_normalization is None or shares is None:
            return None
        kind = self.loss_normalization
        return {"normalization": kind, "agent_share": shares[kind]}

    def _side(self, name: str, source: Any) -> Side | None:
        rows = getattr(self.prepared, name)
        index = getattr(self.prepared, f"{name}_index")
        if rows is None or index is None or not getattr(self.planned.order, f"num_{name}"):
            return None
        reports = (self.prepared.report.get(name) or {}).get("sources", [])
        return Side(rows, index, specs_of(source), reports)

    def report(self) -> dict[str, Any]:
        """What became of every record, the mix, the numbers behind the plots, a few rows."""
        order, prepared = self.planned.order, self.prepared
        agent, general = prepared.agent_index, prepared.general_index
        limit = self.encoding.max_length if self.encoding else None
        return {
            **prepared.report,
            "mix": self.mix_facts,
            **({"packing": dict(self.packing_facts)} if self.packing_facts else {}),
            **({"loss": self.loss} if self.loss else {}),
            "warnings": loss_warnings(prepared.report, limit),
            "notes": list(self.planned.notes),
            "figures": figures(self.planned, self.plan, agent, general, limit),
            "rows": sample_rows(prepared, order, self.tokenizer),
            "manifest": {
                "sha256": self.record.sha256,
                "versions": self.record.content["versions"],
            },
        }

    def where(self, rows: Mapping[str, str | None], tokenizer: str = "") -> dict[str, Any]:
        """Paths and times.

        Args:
            rows: Where the rows lie, by the keys of `stored_rows`; none: not on disk.
            tokenizer: Path or name of the tokenizer, by default the one it knows itself.
        """
        name = tokenizer or str(getattr(self.tokenizer, "name_or_path", "") or "")
        return {
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "agent": [source.spec.path for source in specs_of(self.agent)],
            "general": [source.spec.path for source in specs_of(self.general)],
            "tokenizer": name,
            "rows": {key: place for key, place in rows.items() if place is not None},
        }


def run_of(
    mix: Mix, section: AgentTuningSection, tokenizer: Any, encoding: Encoding, batch: Batch
) -> MixRun:
    """The run of a recipe's mix.

    Args:
        mix: From `agenttuning_plugin.training_data.run.load_mix`.
        section: The recipe's section.
        tokenizer: The tokenizer.
        encoding: Settings of the rows.
        batch: How the trainer cuts the stream into steps.
    """
    return MixRun(
        mix.prepared,
        mix.planned,
        mix.plan,
        agent=[source.spec() for source in section.agent],
        general=[source.spec() for source in section.general],
        tokenizer=tokenizer,
        encoding=encoding,
        batch=batch,
        packing=mix.packing,
        packing_facts=mix.report.get("packing"),
        loss_normalization=section.loss_normalization,
    )


def write_run_files(folder: Path, run: MixRun) -> dict[str, Any]:
    """Write manifest, report and page into the output folder of a training run.

    Args:
        folder: Output folder; made if it is missing.
        run: The mix.

    Returns:
        The report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prepared = run.prepared
    report = run.report()
    write_report(folder, report, folder.resolve().name, RUN_REPORT)
    places = {AGENT: folder_of(prepared.agent), GENERAL: folder_of(prepared.general)}
    write_manifest(folder, run.record, run.where(places))
    return report


def record_run(trainer: Any, run: MixRun) -> None:
    """Write the files of a run into a trainer's output folder, in the main process only.

    For TRL, where no plugin does it, one line before training:

        record_run(trainer, MixRun(data, planned, PLAN, AGENT, GENERAL, tokenizer, ENCODING))

    Args:
        trainer: A `transformers.Trainer` whose sampler keeps the order of its rows.
        run: The mix; how it is cut into steps is taken from the trainer's arguments.

    Raises:
        ConfigError: The trainer would not read the mix's rows in their order.
    """
    check_row_order(trainer)
    if not trainer.is_world_process_zero():
        return
    settings = trainer.args
    batch = Batch(
        micro=settings.train_batch_size,  # of all devices of a process
        accumulation=settings.gradient_accumulation_steps,
        world=settings.world_size,
    )
    kinds = [getattr(each, "normalization", None) for each in trainer.callback_handler.callbacks]
    kind = next(filter(None, kinds), run.loss_normalization)
    whole = replace(run, batch=batch, loss_normalization=kind)
    write_run_files(Path(settings.output_dir), whole)


def write_report(folder: Path, report: Mapping[str, Any], title: str, stem: str) -> None:
    """Write a report as JSON and as a page.

    Args:
        folder: Existing folder.
        report: From `MixRun.report`.
        title: What the data are.
        stem: Name of both files, without their endings.
    """
    text = json.dumps(report, ensure_ascii=False, indent=1) + "\n"
    # Lone surrogates, which JSON can spell and UTF-8 cannot, stay as JSON spells them.
    (folder / f"{stem}.json").write_text(text, "utf-8", errors="backslashreplace")
    page = render_page(report, title)
    (folder / f"{stem}.html").write_text(page, "utf-8", errors="backslashreplace")


def specs_of(source: Any) -> Sequence[ResolvedSource]:
    """Specs of a source, none of one that was handed over in memory."""
    if source is None or is_dataset(source):
        return []
    named = str | Path | SourceSpec | ResolvedSource
    items = [source] if isinstance(source, named) else list(source)
    return (
        [resolve_source(item) for item in items] if all(isinstance(i, named) for i in items) else []
    )
