"""Measure how much of an evaluation set occurs in training data (paper, "Contamination").

The paper takes the rule of Llama 2 (arXiv 2307.09288, appendix A.6): a token of an
evaluation sample is contaminated if it lies in a span of more than 10 tokens that a training
record has, too, where up to four tokens of the span may differ, but not one of its first 10
nor its last. Both spans are equally long: a token differs, none is inserted. The tokens that
differ count as contaminated, being inside of the span; the rule about the last one would
otherwise have no effect. A sample is "dirty" from 80 % of contaminated tokens on and "clean"
below 20 %; "not clean" and "not dirty" are the rest of each.

A shared instruction counts too, so a sample that is mostly instruction is never clean; if possible,
compare only the field that matters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_builders.contamination.ngram_matching import (
    EVALUATION_END,
    TRAINING_END,
    NgramIndex,
    Tokens,
    join,
)
from dataset_builders.contamination.plain_texts import Text
from dataset_builders.contamination.report import (
    ContaminationReport,
    Match,
    SampleContamination,
)
from dataset_builders.contamination.text_units import TokenizerUnits, Units, WordUnits
from dataset_builders.errors import ConfigError, DataError

_BATCH_TOKENS = 2**18
_MAX_TEXT = 200  # characters of a shared span quoted in a report


def contamination(
    training: Iterable[Text],
    evaluation: Iterable[Text],
    *,
    tokenizer: Any | None = None,
    longer_than: int = 10,
    skips: int = 4,
) -> ContaminationReport:
    """Find the spans that evaluation samples share with training records.

    The evaluation set is held in memory, the training set is streamed.

    Args:
        training: Training records.
        evaluation: Evaluation samples.
        tokenizer: A fast Hugging Face tokenizer, whose tokens are compared; none: words,
            in lower case and without punctuation, so that copies with other quotes or
            spacing are found. Languages without spaces between words need a tokenizer.
        longer_than: A shared span has more than this many tokens.
        skips: Tokens of a span that may differ, after the first `longer_than`.

    Raises:
        ConfigError: A number is out of range, or the tokenizer is not a fast one.
        DataError: There is no evaluation sample or no training record.
    """
    if longer_than < 1 or skips < 0:
        raise ConfigError(
            f"longer_than, skips: found {longer_than}, {skips}, expected at least 1 and 0"
        )
    units: Units = WordUnits() if tokenizer is None else TokenizerUnits(tokenizer)
    samples = list(evaluation)
    if not samples:
        raise DataError("evaluation: found no sample, expected at least one")
    search = _Search(samples, units, longer_than, skips)
    records = tokens = 0
    for batch, sequences in _batches(training, units):
        search.compare(batch, sequences)
        records += len(batch)
        tokens += sum(map(len, sequences))
    if not records:
        raise DataError("training: found no record, expected at least one")
    return ContaminationReport(search.results(), records, tokens, longer_than, skips, units.name)


def _batches(training: Iterable[Text], units: Units) -> Iterator[tuple[list[Text], list[Tokens]]]:
    batch: list[Text] = []
    sequences: list[Tokens] = []
    size = 0
    for record in training:
        batch.append(record)
        sequences.append(units.of_record(record.text))
        size += len(sequences[-1])
        if size >= _BATCH_TOKENS:
            yield batch, sequences
            batch, sequences, size = [], [], 0
    if batch:
        yield batch, sequences


class _Search:
    """The samples, and the shared spans found in each so far."""

    def __init__(self, samples: list[Text], units: Units, longer_than: int, skips: int) -> None:
        self._samples = samples
        self._units = units
        sequences = [units.of_sample(sample.text) for sample in samples]
        self._lengths = [len(sequence) for sequence in sequences]
        tokens, self._starts = join(sequences, EVALUATION_END)
        self._index = NgramIndex(tokens, order=longer_than, skips=skips)
        # +1 where a span starts and -1 behind its end: its sum is the spans over a token.
        self._steps = np.zeros(len(tokens) + 1, np.int64)
        self._longest = np.zeros(len(samples), np.int64)
        self._matches: list[Match | None] = [None] * len(samples)

    def compare(self, batch: list[Text], sequences: list[Tokens]) -> None:
        """Search some training records for the samples."""
        training, starts = join(sequences, TRAINING_END)
        for found in self._index.spans(training):
            np.add.at(self._steps, found.samples, 1)
            np.add.at(self._steps, found.samples + found.lengths, -1)
            owners = np.searchsorted(self._starts, found.samples, side="right") - 1
            best = _first_longest(owners, found.lengths)
            for entry in best[found.lengths[best] > self._longest[owners[best]]]:
                sample, length = int(owners[entry]), int(found.lengths[entry])
                place = int(found.records[entry])
                record = int(np.searchsorted(starts, place, side="right")) - 1
                self._longest[sample] = length
                first = int(found.samples[entry] - self._starts[sample])
                offset = place - int(starts[record])
                self._matches[sample] = self._match(batch[record], length, first, offset)

    def _match(self, record: Text, length: int, start: int, offset: int) -> Match:
        places = self._units.places(record.text)
        first, last = places[offset][0], places[offset + length - 1][1]
        text = record.text[first:last]
        text = text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."
        return Match(record.where, length, start, first, text)

    def results(self) -> tuple[SampleContamination, ...]:
        """Return the result of every sample."""
        covered = np.concatenate([[0], np.cumsum(np.cumsum(self._steps) > 0)])
        return tuple(
            SampleContamination(
                sample.where, length, int(covered[start + length] - covered[start]), match
            )
            for sample, length, start, match in zip(
                self._samples, self._lengths, self._starts, self._matches, strict=True
            )
        )


def _first_longest(
    owners: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the first of the longest spans of each owner."""
    order: npt.NDArray[np.int64] = np.lexsort((-lengths, owners))
    first = np.diff(owners[order], prepend=-1) > 0
    return order[first]
