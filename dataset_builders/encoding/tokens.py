"""Encode conversations as a dataset that trainers can use directly.

Each step has its own module: `chat` renders, `coding` makes ids and labels,
`lengths` makes rows fit, `encoding` does that chunk by chunk, `arrow` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dataset_builders.conversation import Conversation
from dataset_builders.encoding.arrow import in_memory, write_dataset
from dataset_builders.encoding.chunks import Rows
from dataset_builders.encoding.encoder import Encoder
from dataset_builders.encoding.lengths import LENGTH_POLICIES, LengthPolicy
from dataset_builders.encoding.token_rows import (
    IGNORE_INDEX,
    KEEP_SHARE,
    TokenReport,
    TokenRow,
    length_for,
)
from dataset_builders.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

__all__ = [
    "IGNORE_INDEX",
    "LENGTH_POLICIES",
    "Encoded",
    "Encoder",
    "LengthPolicy",
    "TokenReport",
    "TokenRow",
    "encode_dataset",
]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Encoded conversations.

    Attributes:
        dataset: The rows. Columns: `input_ids`, `labels` and `attention_mask`,
            each (T,).
        index: One row per dataset row: `id`, `source`, `task`, `model` and `where` of the
            conversation, and more; see `row_index.INDEX`.
        report: Counts of the conversations.
    """

    dataset: Dataset
    index: pa.Table
    report: TokenReport


def encode_dataset(
    conversations: Iterable[Conversation],
    encoder: Encoder,
    *,
    folder: Path | None = None,
    what: str = "source",
    processes: int = 1,
    on_progress: Callable[[int], None] | None = None,
) -> Encoded:
    """Encode conversations as a dataset that SFTTrainer and Axolotl use directly.

    Args:
        conversations: Conversations, streamed; memory is bounded by chunks of them.
        encoder: The encoder.
        folder: A new folder for the dataset, which is then mapped into memory;
            `datasets.load_from_disk` reads it again, and `index.parquet` in it is the
            index. None to hold everything in memory.
        what: Name of the source in errors.
        processes: Number of processes that encode; the data do not depend on it.
        on_progress: Called with the number of conversations of each finished chunk.

    Raises:
        CertificationError: Two methods of locating the trained turns disagree.
        ConfigError: The requested engine cannot be used.
        DataError: No row is left; names the counts by reason and a sample. Or a row is
            too long and the policy is "raise".
        StorageError: The folder cannot be written; nothing is left of it.
        WorkerLostError: A worker process was killed.
    """
    report = TokenReport()

    def counted() -> Iterator[Rows]:
        for rows in encoder.encode_chunks(conversations, processes):
            report.add(rows.report)
            if on_progress is not None:
                on_progress(rows.report.read)
            yield rows
        if not report.kept:
            # Raised inside the context, so that no empty folder is left behind.
            raise _nothing_left(what, report)

    if folder is None:
        dataset, collected = in_memory(counted())
    else:
        from datasets import Dataset

        collected = write_dataset(counted(), folder)
        dataset = Dataset.load_from_disk(str(folder), keep_in_memory=False)
    return Encoded(dataset, collected.table(), report)


def _nothing_left(what: str, report: TokenReport) -> DataError:
    samples = [sample for group in report.samples.values() for sample in group]
    example = f" Example: {samples[0]}" if samples else ""
    wanted = length_for(report.lengths) if "too_long" in report.dropped else None
    if wanted is not None:
        example += f" A max_length of {wanted:,} would keep {KEEP_SHARE:.0%}."
    return DataError(f"{what}: no trainable row is left ({report.summary()}).{example}")
