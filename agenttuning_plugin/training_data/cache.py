"""Cache of encoded sources on disk: atomic writes, content-addressed, never stale.

An entry's name is a hash of everything its rows depend on, the bytes of the source files
included, so an edited file makes another entry. An entry is written beside its place and
then renamed into it, under a lock: of several ranks one works and the others wait, and
what a killed process leaves is never taken for whole.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from dataset_builders.mixing.preparation import EncodedSources, Encoding
from dataset_builders.mixing.row_identity import RowIdentity
from dataset_builders.sources.loading import ResolvedSource

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

_PARTS = ("agent", "general", "holdout", "agent_holdout")
_INDICES = ("agent_index", "general_index", "agent_holdout_index")


def cache_key(
    agent: Sequence[ResolvedSource],
    general: Sequence[ResolvedSource],
    tokenizer: Any,
    encoding: Encoding,
) -> str:
    """Hash everything that the encoded rows depend on, 32 hexadecimal digits.

    Raises:
        ConfigError: The tokenizer cannot be used, see `RowIdentity.parts`.
    """
    parts = RowIdentity(tokenizer, encoding).parts
    parts["agent"] = [source.fingerprint for source in agent]
    parts["general"] = [source.fingerprint for source in general]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def load_or_make(
    folder: Path, key: str, make: Callable[[Path], EncodedSources]
) -> tuple[EncodedSources, bool]:
    """Load an entry from the cache, or create and store it.

    Args:
        folder: Where entries are kept.
        key: Name of the entry, from `cache_key`.
        make: Makes the entry, given a folder that is removed afterwards; called in one
            process only.

    Returns:
        The entry as read from disk, and whether it was there before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entry = folder / key
    with FileLock(folder / f"{key}.lock"):
        found = entry.is_dir()
        if not found:
            _write(make, entry)
        return _read(entry), found


def _write(make: Callable[[Path], EncodedSources], entry: Path) -> None:
    import pyarrow.parquet as pq

    temporary = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent))
    # Within, because the temporary folder itself is readable by its owner only.
    whole = temporary / "whole"
    whole.mkdir()
    try:
        prepared = make(temporary / "raw")
        for name in _PARTS:
            part: Dataset | None = getattr(prepared, name)
            if part is not None:
                # A view would be saved with all of the rows it does not show.
                part.flatten_indices().save_to_disk(whole / name)
        for name in _INDICES:
            index: pa.Table | None = getattr(prepared, name)
            if index is not None:
                pq.write_table(index, whole / f"{name}.parquet")
        report = json.dumps(prepared.report, ensure_ascii=False, indent=1)
        (whole / "report.json").write_text(report, encoding="utf-8")
        whole.rename(entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read(entry: Path) -> EncodedSources:
    import pyarrow.parquet as pq
    from datasets import Dataset

    parts = {
        name: Dataset.load_from_disk(entry / name) if (entry / name).is_dir() else None
        for name in _PARTS
    }
    indices = {
        name: pq.read_table(entry / f"{name}.parquet")
        for name in _INDICES
        if (entry / f"{name}.parquet").is_file()
    }
    report = json.loads((entry / "report.json").read_text("utf-8"))
    return EncodedSources(**parts, **indices, report=report)
