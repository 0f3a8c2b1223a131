"""Result of a contamination check; the rule is in `contamination.check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

DIRTY = 0.8
"""Smallest share of contaminated tokens of a dirty sample."""

CLEAN = 0.2
"""Share of contaminated tokens below which a sample is clean."""


@dataclass(frozen=True, slots=True)
class Match:
    """The longest span that a sample shares with a training record.

    Attributes:
        record: The training record, such as "db.jsonl:812".
        tokens: Length of the span.
        start: Its first token in the sample, from 0.
        record_start: Its first character in the training record's text, from 0.
        text: The start of the span as the record has it.
    """

    record: str
    tokens: int
    start: int
    record_start: int
    text: str


@dataclass(frozen=True, slots=True)
class SampleContamination:
    """Overlap of one evaluation sample with the training set.

    Attributes:
        sample: The sample, such as "test.jsonl:12".
        tokens: Its tokens.
        contaminated: Those that lie in a shared span.
        match: The longest shared span, or none.
    """

    sample: str
    tokens: int
    contaminated: int
    match: Match | None = None

    @property
    def share(self) -> float:
        """Contaminated tokens as a share of all, 0 for a sample without tokens."""
        return self.contaminated / self.tokens if self.tokens else 0.0


@dataclass(frozen=True, slots=True)
class ContaminationReport:
    """Overlap of an evaluation set with a training set.

    Attributes:
        samples: One entry for each evaluation sample, in order.
        training_records: Training records compared with.
        training_tokens: Their tokens.
        longer_than: A shared span has more than this many tokens.
        skips: Tokens of a span that may differ.
        unit: "word", or "token" of a tokenizer.
    """

    samples: tuple[SampleContamination, ...]
    training_records: int
    training_tokens: int
    longer_than: int
    skips: int
    unit: str

    def counts(self) -> dict[str, int]:
        """Number of samples in each of Llama 2's four groups, and of those too short to match."""
        dirty = sum(sample.share >= DIRTY for sample in self.samples)
        clean = sum(sample.share < CLEAN for sample in self.samples)
        return {
            "samples": len(self.samples),
            "dirty": dirty,
            "not_dirty": len(self.samples) - dirty,
            "clean": clean,
            "not_clean": len(self.samples) - clean,
            "too_short": sum(sample.tokens <= self.longer_than for sample in self.samples),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values, without samples that share nothing."""
        return {
            **self.counts(),
            "training_records": self.training_records,
            "training_tokens": self.training_tokens,
            "longer_than": self.longer_than,
            "skips": self.skips,
            "unit": self.unit,
            "found": [_found(sample) for sample in self.samples if sample.match is not None],
        }


def _found(sample: SampleContamination) -> dict[str, Any]:
    assert sample.match is not None
    match = sample.match
    return {
        "sample": sample.sample,
        "tokens": sample.tokens,
        "contaminated": sample.contaminated,
        "share": round(sample.share, 4),
        "longest": {
            "record": match.record,
            "tokens": match.tokens,
            "start": match.start,
            "record_start": match.record_start,
            "text": match.text,
        },
    }
