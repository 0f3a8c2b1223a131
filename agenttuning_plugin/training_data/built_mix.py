"""Rows of a mix with everything they were built from, and the files that describe them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agenttuning_plugin.reports.mix.page import render_page
from agenttuning_plugin.reports.mix.samples import sample_rows
from agenttuning_plugin.reports.mix.stats import figures
from agenttuning_plugin.reports.rows import AGENT, GENERAL, folder_of
from dataset_builders.manifest.records import Batch, Record, Side, make_record
from dataset_builders.manifest.store import write_manifest
from dataset_builders.mixing.losses import loss_warnings, row_notes
from dataset_builders.mixing.mix_report import describe_mix
from dataset_builders.mixing.packed_order import Packing
from dataset_builders.mixing.planning import MixSchedule, Plan
from dataset_builders.mixing.preparation import EncodedSources, Encoding
from dataset_builders.sources.loading import ResolvedSource
from dataset_builders.sources.made import prepared_notes

if TYPE_CHECKING:
    from datasets import Dataset

RUN_REPORT = "agenttuning_report"
"""Stem of the report's files in the output folder of a training run."""


@dataclass(eq=False)
class BuiltMix:
    """Rows of a mix and everything they were built from.

    Attributes:
        train_dataset: The rows in the mix's order, a view on the sources; packed rows with packing.
        prepared: The sources.
        planned: The order of the mix, and notes on it.
        plan: Its plan.
        sources: By side, "agent" and "general", what its rows were read from; nothing of a side
            that was handed over in memory.
        tokenizer: The tokenizer, or none if rows are messages.
        encoding: Settings of the rows, or none.
        batch: How the trainer cuts the stream into steps, or none if that is not known.
        packing: What decides on which examples share a packed row, or none.
        packing_facts: What `describe_packing` says, for the report.
        loss_normalization: What the trainer divides a step's loss by, see `LossNormalization`;
            none if that is not known.
    """

    train_dataset: Dataset
    prepared: EncodedSources
    planned: MixSchedule
    plan: Plan
    sources: Mapping[str, Sequence[ResolvedSource]]
    tokenizer: Any = None
    encoding: Encoding | None = None
    batch: Batch | None = None
    packing: Packing | None = None
    packing_facts: Mapping[str, Any] | None = None
    loss_normalization: str | None = None

    @property
    def eval_dataset(self) -> Dataset | None:
        """General rows held out of training, or None."""
        return self.prepared.holdout

    @cached_property
    def manifest(self) -> Record:
        """The manifest, except for paths and times."""
        return make_record(
            self.planned.order,
            self.plan,
            agent=self._side("agent"),
            general=self._side("general"),
            tokenizer=self.tokenizer,
            encoding=self.encoding,
            batch=self.batch,
            packing=None if self.packing is None else self.packing._asdict(),
            loss=self.loss,
        )

    @cached_property
    def mix_facts(self) -> dict[str, Any]:
        """The result of `describe_mix`."""
        prepared = self.prepared
        return describe_mix(self.planned, self.plan, prepared.agent_index, prepared.general_index)

    @property
    def loss(self) -> dict[str, Any] | None:
        """What a step's loss is divided by, and agent data's share of it."""
        shares = (self.packing_facts or self.mix_facts).get("share_of_loss")
        if self.loss_normalization is None or shares is None:
            return None
        kind = self.loss_normalization
        return {"normalization": kind, "agent_share": shares[kind]}

    @property
    def _read(self) -> list[ResolvedSource]:
        return [source for side in self.sources.values() for source in side]

    def _side(self, name: str) -> Side | None:
        rows = getattr(self.prepared, name)
        index = getattr(self.prepared, f"{name}_index")
        if rows is None or index is None or not getattr(self.planned.order, f"num_{name}"):
            return None
        reports = (self.prepared.report.get(name) or {}).get("sources", [])
        return Side(rows, index, self.sources.get(name, ()), reports)

    @cached_property
    def report(self) -> dict[str, Any]:
        """Return record counts, the mix, the figures of the plots and sample rows."""
        order, prepared = self.planned.order, self.prepared
        agent, general = prepared.agent_index, prepared.general_index
        limit = self.encoding.max_length if self.encoding else None
        return {
            **prepared.report,
            "mix": self.mix_facts,
            **({"packing": dict(self.packing_facts)} if self.packing_facts else {}),
            **({"loss": self.loss} if self.loss else {}),
            "warnings": self.warnings,
            "notes": [
                *self.planned.notes,
                *(line for source in self._read for line in prepared_notes(source.made)),
                *row_notes(prepared.report),
            ],
            "figures": figures(self.planned, self.plan, agent, general, limit),
            "rows": sample_rows(prepared, order, self.tokenizer),
            "manifest": {
                "sha256": self.manifest.sha256,
                "versions": self.manifest.content["versions"],
            },
        }

    @cached_property
    def warnings(self) -> list[str]:
        """One line per large loss of data, see `loss_warnings`."""
        limit = self.encoding.max_length if self.encoding else None
        return loss_warnings(self.prepared.report, limit)

    def where(self, rows: Mapping[str, str | None], tokenizer: str = "") -> dict[str, Any]:
        """Return paths and times.

        Args:
            rows: Where the rows lie, by the keys of `reports.rows`; none: not on disk.
            tokenizer: Path or name of the tokenizer, by default the one it knows itself.
        """
        name = tokenizer or str(getattr(self.tokenizer, "name_or_path", "") or "")
        return {
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "agent": [source.spec.path for source in self.sources.get("agent", ())],
            "general": [source.spec.path for source in self.sources.get("general", ())],
            "tokenizer": name,
            "rows": {key: place for key, place in rows.items() if place is not None},
        }

    def stored_sides(self) -> dict[str, str | None]:
        """Return the folders of encoded sources, for `where`; empty if one is not on disk."""
        prepared = self.prepared
        return {AGENT: folder_of(prepared.agent), GENERAL: folder_of(prepared.general)}

    def write(
        self,
        folder: Path,
        title: str,
        stem: str,
        rows: Mapping[str, str | None],
        tokenizer: str = "",
    ) -> None:
        """Write manifest, report and page.

        Args:
            folder: Existing folder.
            title: Title of the page.
            stem: Name of the report's files, without their endings.
            rows: See `where`.
            tokenizer: See `where`.
        """
        write_report(folder, self.report, title, stem)
        write_manifest(folder, self.manifest, self.where(rows, tokenizer))


def write_report(folder: Path, report: Mapping[str, Any], title: str, stem: str) -> None:
    """Write a report as JSON and as a page.

    Args:
        folder: Existing folder.
        report: From `BuiltMix.report`.
        title: Title, such as the name of the data.
        stem: Name of both files, without their endings.
    """
    text = json.dumps(report, ensure_ascii=False, indent=1) + "\n"
    # Lone surrogates, which JSON can spell and UTF-8 cannot, stay as JSON spells them.
    (folder / f"{stem}.json").write_text(text, "utf-8", errors="backslashreplace")
    page = render_page(report, title)
    (folder / f"{stem}.html").write_text(page, "utf-8", errors="backslashreplace")
