"""`manifest.json`: rebuilds the stream of a mix, and identifies what each step saw.

Beside it are the indices of both sides' rows and the tokenizer. Everything that depends on where
and when it was written is under one key, `where`: two builds from the same inputs are equal except
for that key.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_builders.errors import ConfigError, DataError, SourceNotFoundError
from dataset_builders.manifest.orders import order_of
from dataset_builders.manifest.records import SCHEMA, Batch, Record, hash_of, to_parquet
from dataset_builders.mixing.order import MixOrder
from dataset_builders.storage import replace_text

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "manifest_tokenizer.json"
INDEX_FILES = {"agent": "agent_index.parquet", "general": "general_index.parquet"}


def write_manifest(folder: Path, record: Record, where: Mapping[str, Any]) -> None:
    """Write a manifest and its indices atomically.

    Args:
        folder: Existing folder.
        record: From `make_record`.
        where: Paths and times, JSON-ready: see `docs/concepts/artifacts.md`.
    """
    target = folder / MANIFEST_FILE
    target.unlink(missing_ok=True)  # or an old manifest would be beside new indices
    for name, index in record.indices.items():
        (folder / INDEX_FILES[name]).write_bytes(to_parquet(index))
    if record.tokenizer is not None:
        (folder / TOKENIZER_FILE).write_text(record.tokenizer, "utf-8")
    whole = {**record.content, "sha256": record.sha256, "where": dict(where)}
    replace_text(target, json.dumps(whole, indent=1) + "\n")


@dataclass(frozen=True)
class Manifest:
    """A manifest read from disk.

    Attributes:
        folder: Its folder.
        content: Content of `manifest.json`.
        indices: By side, the index of its rows, with the column `SPANS`.
    """

    folder: Path
    content: Mapping[str, Any]
    indices: Mapping[str, pa.Table]

    @cached_property
    def order(self) -> MixOrder:
        """Rebuild the order of the mix from the files alone.

        Raises:
            DataError: See `orders.order_of`.
        """
        agent, general = (self.indices.get(name) for name in INDEX_FILES)
        try:
            return order_of(self.content["order"], agent, general)
        except DataError as error:
            raise DataError(f"{self.folder / MANIFEST_FILE}: {error}") from error
        except (KeyError, TypeError, ConfigError) as error:
            cause = f"found no {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(f"{self.folder / MANIFEST_FILE}: order: {cause}") from error

    @property
    def batch(self) -> Batch | None:
        """How the trainer divides the stream into steps, or None if unknown."""
        found = self.content["batch"]
        return None if found is None else Batch(**found)

    @property
    def where(self) -> Mapping[str, Any]:
        """Paths and times."""
        found: Mapping[str, Any] = self.content["where"]
        return found

    def tokenizer(self) -> Any:
        """Load the tokenizer that encoded the rows (package `tokenizers`); None if there was none.

        Raises:
            DataError: Its file is missing or was changed.
        """
        facts = self.content["tokenizer"]
        if facts is None:
            return None
        from tokenizers import Tokenizer

        text = _read(self.folder / TOKENIZER_FILE, facts["sha256"]).decode("utf-8")
        return Tokenizer.from_str(text)


def read_manifest(folder: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        SourceNotFoundError: The folder has none.
        DataError: It has another schema, or a file is damaged, missing or was changed.
    """
    import pyarrow.parquet as pq

    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise SourceNotFoundError(
            f"{path}: no such file; expected a folder made by `agenttuning build` or by a "
            "training run with the plugin"
        )
    content = _load(path)
    indices: dict[str, pa.Table] = {}
    for name, file in INDEX_FILES.items():
        if content[name] is not None:
            data = _read(folder / file, content[name]["index_sha256"])
            indices[name] = pq.read_table(io.BytesIO(data))
    return Manifest(folder, content, indices)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not readable as JSON: {error}") from error
    found = content.get("schema") if isinstance(content, dict) else None
    if found != SCHEMA:
        raise DataError(f"{path}: schema: found {found!r}, expected {SCHEMA}")
    rest = {key: value for key, value in content.items() if key not in ("sha256", "where")}
    if content.get("sha256") != hash_of(rest) or not isinstance(content.get("where"), dict):
        raise DataError(f"{path}: was changed after it was written: its hash does not match")
    return dict(content)


def _read(path: Path, sha256: str) -> bytes:
    if not path.is_file():
        raise DataError(f"{path}: missing; the manifest beside it needs it")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DataError(f"{path}: damaged or changed: its hash differs from the manifest's")
    return data
