"""Access to the rows of a manifest, while they are still on disk."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agenttuning_plugin.reports.explain import Example
from agenttuning_plugin.reports.segments import Segment, decode_pieces, message_text
from dataset_builders.manifest.store import Manifest

if TYPE_CHECKING:
    from datasets import Dataset

MIX, AGENT, GENERAL = "mix", "agent", "general"
"""Keys of `where["rows"]`: a data set in the mix's order, or those of its sides. Relative
paths are the manifest's folder's."""


@dataclass(frozen=True)
class StoredRows:
    """Rows on disk.

    Attributes:
        parts: By key, see `MIX`.
        tokenizer: The tokenizer of the rows, of the `tokenizers` package, or none.
    """

    parts: Mapping[str, Dataset]
    tokenizer: Any

    def pieces(self, example: Example) -> list[Segment] | None:
        """Return the text of an example in pieces; None if its row is missing or changed."""
        whole = MIX in self.parts
        rows = self.parts.get(MIX if whole else example.side)
        number = example.position if whole else example.row
        if rows is None or number >= len(rows):
            return None
        row = rows[number]
        if "messages" in row:
            return [
                Segment(message_text(message), bool(message.get("train")))
                for message in row["messages"]
            ]
        if self.tokenizer is None or len(row["input_ids"]) != example.tokens:
            return None
        return decode_pieces(row["input_ids"], example.spans, self.decode)

    def decode(self, ids: Any) -> str:
        """Decode ids to text, with special tokens written out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))


def open_rows(manifest: Manifest) -> StoredRows | None:
    """Open the rows of a manifest; None if they are no longer there.

    A part whose files are incomplete or damaged counts as missing.

    Raises:
        DataError: The tokenizer beside the manifest is damaged.
    """
    from datasets import Dataset

    places = manifest.where.get("rows") or {}
    parts: dict[str, Dataset] = {}
    for key, place in places.items():
        folder = manifest.folder / Path(place)
        if (folder / "state.json").is_file():
            # pyarrow's errors are OSErrors or ValueErrors, too.
            with suppress(OSError, ValueError, KeyError, TypeError):
                parts[key] = Dataset.load_from_disk(folder)
    return StoredRows(parts, manifest.tokenizer()) if parts else None


def folder_of(rows: Dataset | None) -> str | None:
    """Return the folder that a dataset was loaded from, if it holds these rows in this order."""
    if rows is None or rows._indices is not None:
        return None
    folders = {Path(file["filename"]).resolve().parent for file in rows.cache_files}
    if len(folders) != 1:
        return None
    (folder,) = folders
    return str(folder) if (folder / "state.json").is_file() else None
