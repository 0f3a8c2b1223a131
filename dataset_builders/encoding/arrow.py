"""Write token rows as a dataset on disk: streaming, atomic, byte-for-byte reproducible.

The layout is that of `datasets.save_to_disk`, written chunk by chunk from the rows' own
memory. Names of files are fixed, and the fingerprint is a hash of the rows, so nothing
in a folder depends on when or where it was made.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dataset_builders.encoding.chunks import Rows
from dataset_builders.encoding.row_index import index_schema, make_index
from dataset_builders.encoding.token_rows import Origin
from dataset_builders.errors import AgentTuningError, StorageError

if TYPE_CHECKING:
    from datasets import Dataset

Arrow = Any
"""A table, batch or schema of pyarrow, which carries no types of its own."""

INDEX_FILE = "index.parquet"
"""Table of a dataset's rows, in the dataset's folder."""

_STALE = 24 * 60 * 60
"""Seconds without a write after which a killed build's folder is considered stale."""

_DATA_FILE = "data-00000-of-00001.arrow"


@dataclass
class Collected:
    """Index and digest accumulated over the rows as they are written.

    Attributes:
        index: For every chunk the part of the index.
        digest: Hash of the rows.
    """

    index: list[Arrow] = field(default_factory=list)
    digest: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=8))

    def add(self, rows: Rows) -> None:
        """Add a chunk."""
        self.index.append(_index_batch(rows))
        for column in (rows.lengths, rows.ids, rows.labels):
            self.digest.update(np.ascontiguousarray(column))

    def table(self) -> Arrow:
        """Return the index: one row per dataset row."""
        import pyarrow as pa

        return pa.Table.from_batches(self.index, schema=index_schema())


def write_dataset(chunks: Iterable[Rows], folder: Path) -> Collected:
    """Write rows into a new folder that `datasets.load_from_disk` reads.

    Everything is written to a temporary sibling folder and renamed at the end, so the folder is
    never incomplete.

    Args:
        chunks: The rows, streamed.
        folder: The folder; must not exist, or be empty.

    Returns:
        The index and the hash of the rows.

    Raises:
        StorageError: It cannot be written; names folder and cause.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    collected = Collected()
    with _whole_or_not_at_all(folder) as temporary:
        with (temporary / _DATA_FILE).open("wb") as file:
            schema = features().arrow_schema
            with pa.ipc.new_stream(file, schema) as stream:
                for rows in chunks:
                    if len(rows.lengths):
                        stream.write_batch(record_batch(rows))
                        collected.add(rows)
        pq.write_table(collected.table(), temporary / INDEX_FILE)
        _write_state(temporary, collected.digest.hexdigest())
    return collected


def in_memory(chunks: Iterable[Rows]) -> tuple[Dataset, Collected]:
    """Hold rows in memory as a dataset."""
    import pyarrow as pa
    from datasets import Dataset

    collected, batches = Collected(), []
    for rows in chunks:
        if len(rows.lengths):
            batches.append(record_batch(rows))
            collected.add(rows)
    table = pa.Table.from_batches(batches, schema=features().arrow_schema)
    return Dataset(table, fingerprint=collected.digest.hexdigest()), collected


def features() -> Any:
    """Return the columns, each (T,)."""
    from datasets import Features, List, Value

    columns: dict[str, Any] = {
        "input_ids": List(Value("int32")),
        "labels": List(Value("int32")),
        "attention_mask": List(Value("int8")),
    }
    return Features(columns)


def record_batch(rows: Rows) -> Arrow:
    """Return the rows' columns as a record batch, without a copy where possible."""
    import pyarrow as pa

    schema = features().arrow_schema
    ends = np.cumsum(rows.lengths, dtype=np.int32)
    offsets = pa.array(np.concatenate([np.zeros(1, np.int32), ends]))
    flat: dict[str, Any] = {
        "input_ids": rows.ids,
        "labels": rows.labels,
        "attention_mask": np.ones(len(rows.ids), dtype=np.int8),
    }
    columns: list[Arrow] = [
        pa.ListArray.from_arrays(offsets, pa.array(values), type=schema.field(name).type)
        for name, values in flat.items()
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _index_batch(rows: Rows) -> Arrow:
    columns: dict[str, Any] = dict(
        zip(Origin._fields, zip(*rows.origins, strict=True), strict=True)
    )
    columns |= {"tokens": rows.lengths, "trained_tokens": rows.trained}
    (batch,) = make_index(columns, len(rows.lengths)).to_batches()
    return batch


def _write_state(folder: Path, fingerprint: str) -> None:
    from datasets import DatasetInfo

    DatasetInfo(features=features()).write_to_directory(str(folder))
    state: dict[str, Any] = {
        "_data_files": [{"filename": _DATA_FILE}],
        "_fingerprint": fingerprint,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    text = json.dumps(state, indent=2, sort_keys=True)
    (folder / "state.json").write_text(text, encoding="utf-8")


@contextmanager
def _whole_or_not_at_all(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to the target on success."""
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Checked now: the rename would fail only after everything has been encoded.
        if folder.exists() and any(folder.iterdir()):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        _remove_stale(folder)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
        yield temporary
        _make_durable(temporary)
        temporary.rename(folder)
    except OSError as error:
        if isinstance(error, AgentTuningError):
            raise
        cause = error.strerror or str(error).splitlines()[0]
        raise StorageError(f"{folder}: cannot be written: {cause}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _remove_stale(folder: Path) -> None:
    """Remove leftovers of killed builds; younger ones may belong to builds still running."""
    prefix = f".{folder.name}.partial-"
    for path in folder.parent.iterdir():
        if path.name.startswith(prefix) and path.is_dir() and not path.is_symlink():
            with suppress(OSError):  # gone meanwhile, or not ours
                # A folder's mtime does not change while a file in it grows.
                newest = max(item.stat().st_mtime for item in [path, *path.iterdir()])
                if time.time() - newest > _STALE:
                    shutil.rmtree(path, ignore_errors=True)


def _make_durable(folder: Path) -> None:
    """Sync the bytes to disk before the rename, against a power loss between the two."""
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    folder.chmod(0o777 & ~_umask())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
