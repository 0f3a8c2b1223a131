"""What identifies a model that is not loaded: digests of its files, or its commit on the hub."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataset_builders.errors import SourceNotFoundError

_SAMPLES = 64
_BLOCK = 2**16
"""Of a weight file its ends and this many blocks are read: a training step changes nearly all."""

_WHOLE = 2**24
"""Files up to this size are read whole."""

_SUFFIXES = (".json", ".safetensors", ".bin", ".model", ".jinja")


def model_identity(model: str) -> dict[str, Any]:
    """Identify a model without loading it.

    Args:
        model: Folder of a model or adapter, or hub id.

    Returns:
        `{"sha256": ...}` of a folder, wherever it lies: of file names, sizes, small files and
        samples of the weights; `{"hub": id, "commit": ...}` of a hub id.

    Raises:
        SourceNotFoundError: There is no such model.
    """
    place = Path(model).expanduser()
    if place.is_dir():
        return {"sha256": _folder_digest(place)}
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        line = " ".join(str(error).split())[:300]
        raise SourceNotFoundError(f"{model}: no such folder or hub id: {line}") from error
    return {"hub": model, "commit": str(getattr(config, "_commit_hash", None) or "")}


def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix not in _SUFFIXES or file.name.startswith(".") or not file.is_file():
            continue
        part = hashlib.sha256(f"{file.name}\0{file.stat().st_size}\0".encode())
        for block in _blocks(file):
            part.update(block)
        digest.update(part.digest())
    return digest.hexdigest()


def _blocks(file: Path) -> Iterator[bytes]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        if size <= _WHOLE:
            yield stream.read()
            return
        for number in range(_SAMPLES + 1):
            stream.seek((size - _BLOCK) * number // _SAMPLES)
            yield stream.read(_BLOCK)
