"""Contents of a manifest: versions, tokenizer, settings, order, and the rows' hashes."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from dataset_builders.manifest.orders import order_record
from dataset_builders.manifest.surveys import survey_rows
from dataset_builders.mixing.order import MixOrder
from dataset_builders.mixing.planning import Plan
from dataset_builders.sources.loading import ResolvedSource
from dataset_builders.sources.made import KINDS
from dataset_builders.sources.row_steps import DEFAULTS
from dataset_builders.sources.spec import BEFORE_READING

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

SCHEMA = 1
"""Increased when a manifest's keys, or their meaning, change."""

_LATER: dict[str, Any] = {
    **DEFAULTS,
    "min_reward": None,
    "vary": None,
    **dict.fromkeys(KINDS),
    **BEFORE_READING,
}
"""Settings of a source that early manifests do not have, by what they are without them."""

SPANS = "spans"
"""Column that an index has here beside `row_index.INDEX`, see `surveys.Survey.spans`."""

_PACKAGES = (
    "agenttuning-plugin", "transformers", "tokenizers", "datasets", "numpy", "pyarrow",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Batch:
    """How a trainer divides the stream into optimizer steps.

    Attributes:
        micro: Rows of one forward pass of one process.
        accumulation: Forward passes of a process in a step.
        world: Data-parallel world size.
    """

    micro: int
    accumulation: int = 1
    world: int = 1

    @property
    def size(self) -> int:
        """Rows of an optimizer step, over all processes."""
        return self.micro * self.accumulation * self.world


@dataclass(frozen=True, slots=True)
class Side:
    """The agent or the general data of a mix.

    Attributes:
        rows: Its rows, encoded or as messages.
        index: Where each row came from, see `row_index.INDEX`.
        sources: Where it was read from; empty if it was handed over in memory.
        reports: Record counts of each source, from `SourceReport.to_dict`.
    """

    rows: Dataset
    index: pa.Table
    sources: Sequence[ResolvedSource] = ()
    reports: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Record:
    """A manifest that is not yet on disk.

    Attributes:
        content: What `manifest.json` holds, but for its hash and `where`.
        indices: By side, the index with the column `SPANS`.
        tokenizer: The tokenizer as JSON, or none if rows are not encoded.
    """

    content: dict[str, Any]
    indices: dict[str, pa.Table]
    tokenizer: str | None

    @property
    def sha256(self) -> str:
        """Hash of everything that determines the stream, in hexadecimal."""
        return hash_of(self.content)


def make_record(
    order: MixOrder,
    plan: Plan,
    *,
    agent: Side | None,
    general: Side | None,
    tokenizer: Any = None,
    encoding: Any = None,
    batch: Batch | None = None,
    packing: Mapping[str, Any] | None = None,
    loss: Mapping[str, Any] | None = None,
) -> Record:
    """Build the manifest record of a mix.

    Args:
        order: The order of the mix.
        plan: Its plan.
        agent: Agent data; ignored if the order has none.
        general: General data, likewise.
        tokenizer: The tokenizer of the rows, or none if they are messages.
        encoding: Settings of the rows, a `preparation.Encoding`, or none.
        batch: How the trainer divides the stream into steps, or None if unknown.
        packing: Settings that decide which examples share a packed row, JSON-ready.
        loss: What a step's loss is divided by, JSON-ready, or None if unknown.
    """
    import pyarrow as pa

    sides = {"agent": agent if order.num_agent else None}
    sides["general"] = general if order.num_general else None
    indices: dict[str, pa.Table] = {}
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "versions": _versions(),
        "tokenizer": None if tokenizer is None else _tokenizer_record(tokenizer, encoding),
        "encoding": None if encoding is None else _plain(encoding.to_dict()),
        "wanted": _plain(asdict(plan)),
        "order": order_record(order, _index_of(sides["agent"]), _index_of(sides["general"])),
        "packing": None if packing is None else _plain(dict(packing)),
        "batch": None if batch is None else asdict(batch),
        "loss": None if loss is None else _plain(dict(loss)),
    }
    for name, side in sides.items():
        if side is None:
            content[name] = None
            continue
        found = survey_rows(side.rows)
        index = side.index.combine_chunks().append_column(SPANS, pa.chunked_array([found.spans]))
        indices[name] = index
        content[name] = _side_record(side, found.sha256)
        content[name]["index_sha256"] = hashlib.sha256(to_parquet(index)).hexdigest()
    text = None if tokenizer is None else str(tokenizer.backend_tokenizer.to_str())
    return Record(content, indices, text)


def _index_of(side: Side | None) -> pa.Table | None:
    return None if side is None else side.index


def _side_record(side: Side, sha256: str) -> dict[str, Any]:
    encoded = "input_ids" in side.rows.column_names
    facts: dict[str, Any] = {"rows": len(side.index), "sha256": sha256}
    for name in ("tokens", "trained_tokens") if encoded else ():
        facts[name] = int(side.index[name].to_numpy().sum())
    facts["sources"] = []
    for number, source in enumerate(side.sources):
        report = side.reports[number] if number < len(side.reports) else {}
        counts = {"records": report.get("read"), "records_kept": report.get("kept")}
        options = _plain(asdict(source.spec))
        del options["path"]  # recorded in `where` instead: a copy elsewhere gives the same stream
        for name, default in _LATER.items():
            if options[name] == default:  # As in manifests of before there were these settings.
                del options[name]
        made = {} if source.made is None else {"made": source.made}
        facts["sources"].append({**options, "fingerprint": source.fingerprint, **made, **counts})
    return facts


def _tokenizer_record(tokenizer: Any, encoding: Any) -> dict[str, Any]:
    text = str(tokenizer.backend_tokenizer.to_str())
    template = json.dumps(tokenizer.chat_template, sort_keys=True)
    return {
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "chat_template_sha256": hashlib.sha256(template.encode()).hexdigest(),
        "bos": tokenizer.bos_token,
        "eos": tokenizer.eos_token,
        "end_of_turn": list(getattr(encoding, "end_of_turn", ())),
    }


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def to_parquet(index: pa.Table) -> bytes:
    """Serialise an index as Parquet, byte-identical for any memory layout of its rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(index.combine_chunks(), sink, compression="zstd")
    return bytes(sink.getvalue())


def _plain(value: Any) -> Any:
    """Return the value after a JSON round trip."""
    return json.loads(json.dumps(value))


def hash_of(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a JSON-ready value, in hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
