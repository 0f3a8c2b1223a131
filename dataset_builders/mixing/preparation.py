"""Prepare sources for mixing: read, encode, and hold conversations out for evaluation.

The expensive half of building a mix, which a trainer adapter can cache; `mixes` is the other.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dataset_builders.conversation import Conversation, optional_columns
from dataset_builders.encoding.row_index import TEXTS, make_index
from dataset_builders.encoding.tokens import Encoder, LengthPolicy, TokenReport, encode_dataset
from dataset_builders.errors import ConfigError
from dataset_builders.mixing.holdout import split_holdout, split_task_holdout
from dataset_builders.mixing.losses import loss_warnings
from dataset_builders.mixing.order import check_mix
from dataset_builders.mixing.planning import Plan
from dataset_builders.mixing.token_sources import token_source
from dataset_builders.readers.report import SourceReport
from dataset_builders.sources.in_memory import is_tokens
from dataset_builders.sources.inputs import Progress, Source, is_empty, read_source
from dataset_builders.sources.rows import to_dataset

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

LOG = logging.getLogger(__name__)

Side = Literal["agent", "general"]

LENGTH_DEFAULTS: dict[Side, LengthPolicy] = {"agent": "shorten", "general": "split"}
"""What happens to conversations that are too long: an agent's keep their task and their end,
and chat becomes several, as FastChat has it (docs/concepts/masks.md has the figures)."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """Settings that determine how a source is encoded as rows.

    Attributes:
        max_length: Longest row in tokens.
        policy: Length policy for longer ones, see `Encoder`; None: `LENGTH_DEFAULTS`.
        end_of_turn: Additional end-of-turn tokens besides eos, see `ChatRenderer`.
        holdout: General conversations kept out of training to measure the loss on.
        agent_holdout: Agent conversations of each task kept out of training likewise.
    """

    max_length: int
    policy: LengthPolicy | None = None
    end_of_turn: tuple[str, ...] = ()
    holdout: int = 0
    agent_holdout: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the settings by name, without those that older manifests and caches lack."""
        found = asdict(self)
        if not self.agent_holdout:
            del found["agent_holdout"]
        return found


@dataclass(frozen=True, slots=True)
class EncodedSources:
    """Encoded sources.

    Attributes:
        agent: Agent rows without those held out, or none if the mix needs none.
        general: General rows without those held out, or none.
        holdout: General rows held out, or none.
        agent_index: Where each agent row came from, see `row_index.INDEX`.
        general_index: The same of the general rows.
        report: Counts of records and conversations, JSON-ready.
        agent_holdout: Agent rows held out, or none; `agent_holdout_index` is their index.
    """

    agent: Dataset | None
    general: Dataset | None
    holdout: Dataset | None
    agent_index: pa.Table | None = None
    general_index: pa.Table | None = None
    report: dict[str, Any] = field(default_factory=dict)
    agent_holdout: Dataset | None = None
    agent_holdout_index: pa.Table | None = None


def prepare(
    agent: Source | None,
    general: Source | None,
    *,
    plan: Plan,
    tokenizer: Any,
    encoding: Encoding,
    folder: Path | None = None,
    processes: int = 1,
    on_progress: Progress | None = None,
    quiet: bool = False,
) -> EncodedSources:
    """Read and encode the sources that a mix of this plan needs.

    General data is also read at eta 1 if conversations of it are to be held out; its rows are then
    in the result too, which can therefore be reused for every eta above 0.

    Args:
        agent: Agent data.
        general: General chat.
        plan: The plan of the mix.
        tokenizer: A fast tokenizer with a chat template.
        encoding: Encoding settings.
        folder: Where rows are written, as `agent` and `general`, while sources stream
            through bounded memory; none: rows are held in memory.
        processes: Number of processes that encode; rows do not depend on it.
        on_progress: Called as records are read and conversations encoded.
        quiet: Whether to suppress the warnings of `losses.loss_warnings`; for callers that show
            them themselves.

    Raises:
        ConfigError: A setting is out of range, a source that eta needs is missing, or the
            tokenizer cannot be used.
        DataError: A source cannot be read, or no row of it is usable.
        SourceNotFoundError: A path or hub id does not exist.
    """
    check_settings(agent, general, plan)
    report: dict[str, Any] = {}
    encode = _Encode(tokenizer, encoding, folder, processes, report, on_progress)
    agent_rows = general_rows = holdout = agent_index = general_index = None
    held_agent: dict[str, Any] = {}
    if plan.needs_agent:
        agent_rows, agent_index = encode(agent, "agent")
        if encoding.agent_holdout:
            kept, held = split_task_holdout(agent_rows, agent_index, encoding.agent_holdout)
            held_agent = {"agent_holdout": agent_rows.select(held)}
            held_agent["agent_holdout_index"] = agent_index.take(held)
            agent_rows, agent_index = agent_rows.select(kept), agent_index.take(kept)
            report["agent_holdout"] = {"rows": len(held)}
    if not is_empty(general) and (plan.needs_general or encoding.holdout):
        rows, index = encode(general, "general")
        kept, held = split_holdout(rows, index, encoding.holdout)
        general_rows, general_index = rows.select(kept), index.take(kept)
        if len(held):
            holdout = rows.select(held)
            report["holdout"] = {"rows": len(holdout)}
    if not quiet:
        for line in loss_warnings(report, encoding.max_length):
            LOG.warning("%s", line)
    sides = agent_rows, general_rows, holdout, agent_index, general_index
    return EncodedSources(*sides, report, **held_agent)


def prepare_messages(
    agent: Source | None, general: Source | None, *, plan: Plan, quiet: bool = False
) -> EncodedSources:
    """Read the sources that a mix of this plan needs, without encoding them; see `prepare`.

    Raises:
        ConfigError: eta is outside of [0, 1], or a source that it needs is missing.
        DataError: A source cannot be read, or no record of it is usable.
        SourceNotFoundError: A path or hub id does not exist.
    """
    check_settings(agent, general, plan)
    report: dict[str, Any] = {}
    agent_talks = _messages(agent, "agent", report) if plan.needs_agent else []
    general_talks = _messages(general, "general", report) if plan.needs_general else []
    if not quiet:
        for line in loss_warnings(report):
            LOG.warning("%s", line)
    # Of both sides, or rows with tools could not be mixed with rows without.
    columns = optional_columns([*agent_talks, *general_talks])
    agent_rows, agent_index = _as_rows(agent_talks, columns)
    general_rows, general_index = _as_rows(general_talks, columns)
    return EncodedSources(agent_rows, general_rows, None, agent_index, general_index, report)


def check_settings(
    agent: Source | None, general: Source | None, plan: Plan, num_examples: int = 1
) -> None:
    """Check the settings of a mix before anything is read.

    Raises:
        ConfigError: A number is out of range, or a source that eta needs is missing.
    """
    sides = not is_empty(agent), not is_empty(general)
    check_mix(*sides, plan.eta, num_examples, plan.block, plan.mode)


@dataclass(frozen=True, slots=True)
class _Encode:
    """Encodes sides; the attributes are `prepare`'s arguments and the report to fill."""

    tokenizer: Any
    encoding: Encoding
    folder: Path | None
    processes: int
    report: dict[str, Any]
    on_progress: Progress | None

    def __call__(self, source: Source | None, what: Side) -> tuple[Dataset, pa.Table]:
        if source is None:
            raise ConfigError(f"there is no {what} data")
        if is_tokens(source):
            given = token_source(source, what, self.encoding.max_length, self.encoding.policy)
            self._tell(what, [], given.report)
            return given.dataset, given.index
        conversations, reports = read_source(source, what, self.on_progress)
        made = encode_dataset(
            conversations,
            self._encoder(what),
            folder=self.folder and self.folder / what,
            what=what,
            processes=self.processes,
            on_progress=partial(self._encoded, what),
        )
        self._tell(what, reports, made.report)
        return made.dataset, made.index

    def _tell(self, what: Side, reports: list[SourceReport], tokens: TokenReport) -> None:
        # Text keys, as in JSON, so that a report survives a round trip unchanged.
        lengths = {str(length): number for length, number in sorted(tokens.lengths.items())}
        self.report[what] = {
            "sources": _accounts(reports),
            "tokens": {**asdict(tokens), "lengths": lengths, "summary": tokens.summary()},
        }
        for line in report_lines({what: self.report[what]}):
            LOG.info("%s", line)

    def _encoder(self, what: Side) -> Encoder:
        return Encoder(
            self.tokenizer,
            max_length=self.encoding.max_length,
            policy=self.encoding.policy or LENGTH_DEFAULTS[what],
            end_of_turn=self.encoding.end_of_turn,
            rows="auto",
        )

    def _encoded(self, what: Side, number: int) -> None:
        if self.on_progress is not None:
            self.on_progress(f"encoding {what}", number)


def report_lines(report: dict[str, Any]) -> list[str]:
    """Return one report line per source."""
    lines: list[str] = []
    for what in ("agent", "general"):
        part = report.get(what) or {}
        lines += [source["summary"] for source in part.get("sources", [])]
        if "tokens" in part:
            lines.append(f"{what}: {part['tokens']['summary']}")
    return lines


def _messages(source: Source | None, what: str, report: dict[str, Any]) -> list[Conversation]:
    """Read the conversations of a side."""
    if source is None:
        raise ConfigError(f"there is no {what} data")
    conversations, reports = read_source(source, what, None)
    found = list(conversations)
    for conversation in found:
        _check_shown_as_messages(conversation, what)
    report[what] = {"sources": _accounts(reports)}
    return found


def _check_shown_as_messages(conversation: Conversation, what: str) -> None:
    """Reject options that need a chat template, where rows remain messages."""
    options = conversation.options
    if options is None:
        return
    settings = {
        "reasoning: mask": options.mask_reasoning,
        "rows: per_turn": options.rows == "per_turn",
        "keep_last_turns": options.keep_last_turns is not None,
    }
    for setting, is_set in settings.items():
        if is_set:
            raise ConfigError(
                f"{what}: {setting}: found without a tokenizer, expected one: rows of messages "
                "cannot express it"
            )


def _as_rows(
    talks: list[Conversation], columns: Mapping[str, bool]
) -> tuple[Dataset | None, pa.Table | None]:
    """Convert conversations to rows and their index."""
    if not talks:
        return None, None
    texts = {name: [getattr(talk, name) for talk in talks] for name in TEXTS}
    index = make_index({**texts, "entry": [talk.entry for talk in talks]}, len(talks))
    return to_dataset(talks, columns), index


def _accounts(reports: list[SourceReport]) -> list[dict[str, Any]]:
    # Only after iterating: reports are complete then.
    return [{**report.to_dict(), "summary": report.summary()} for report in reports]
