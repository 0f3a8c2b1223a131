"""`agenttuning_model.json`: the base model of a run and how it was loaded for training.

An adapter's folder says neither whether its base was quantised nor which weights a path held. A
merge needs both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dataset_builders.errors import DataError
from dataset_builders.storage import replace_text

MODEL_RECORD = "agenttuning_model.json"
"""Name of the file in a run's output folder."""

_SCHEMA = 1
_SAMPLE = 1024
"""Bytes that are hashed at the start and in the middle of each tensor."""
_VOLATILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")
"""Keys of a model's config that differ between equal models."""


def write_model_record(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the record into an output folder, created if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"schema": _SCHEMA, **content}, indent=1, ensure_ascii=False)
    replace_text(folder / MODEL_RECORD, text + "\n")


def read_model_record(folder: Path) -> dict[str, Any]:
    """Read a run's record; empty for a run that has none.

    Args:
        folder: Output folder, or one of its checkpoints.

    Raises:
        DataError: The file has another format.
    """
    for place in (folder, folder.parent):
        path = place / MODEL_RECORD
        if path.is_file() and (place == folder or folder.name.startswith("checkpoint-")):
            try:
                content = json.loads(path.read_text("utf-8"))
            except ValueError as error:
                raise DataError(f"{path}: not JSON: {error}") from error
            found = content.get("schema") if isinstance(content, dict) else None
            if found != _SCHEMA:
                raise DataError(f"{path}: schema: found {found!r}, expected {_SCHEMA}")
            for key in ("base", "quantization"):
                if not isinstance(content.get(key), dict | None):
                    raise DataError(f"{path}: {key}: found {content[key]!r}, expected an object")
            return dict(content)
    return {}


def base_fingerprint(name: str, revision: str | None = None) -> dict[str, str | None]:
    """Return digests of a model's files, without reading all of its weights.

    The same for any sharding of the same weights. Nothing is downloaded.

    Args:
        name: Folder, or hub id of a model in the hub's cache.
        revision: Of the hub id.

    Returns:
        "config": digest of config.json without what differs between equal models; "weights": digest
        of name, type and shape of each tensor in the safetensors files and of a sample of its
        bytes. None for what is not there.

    Raises:
        DataError: A file is damaged.
    """
    from huggingface_hub import try_to_load_from_cache

    def find(file: str) -> Path | None:
        place = Path(name).expanduser()
        if place.is_dir():
            return place / file if (place / file).is_file() else None
        try:
            cached = try_to_load_from_cache(name, file, revision=revision)
        except ValueError:  # not a hub id
            return None
        return Path(cached) if isinstance(cached, str) else None

    found: dict[str, str | None] = {"config": None, "weights": None}
    if (config := find("config.json")) is not None:
        content = json_object(config)
        kept = {key: value for key, value in content.items() if key not in _VOLATILE}
        found["config"] = _digest(json.dumps(kept, sort_keys=True).encode())
    names = {"model.safetensors"}
    if (index := find("model.safetensors.index.json")) is not None:
        names = set(json_object(index).get("weight_map", {}).values())
    files = [find(each) for each in sorted(names)]
    if all(files):
        samples = sorted(sample for file in files if file for sample in _samples(file))
        found["weights"] = _digest(b"".join(samples))
    return found


def tensor_headers(file: Path) -> dict[str, dict[str, Any]]:
    """Return `dtype`, `shape` and `data_offsets` of each tensor of a safetensors file.

    Raises:
        DataError: It is none, such as a pointer of Git LFS, or it is truncated.
    """
    length = file.stat().st_size
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        text = stream.read(size) if size <= length else b""
    try:
        header: dict[str, dict[str, Any]] = json.loads(text)
        header.pop("__metadata__", None)
        end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: found no safetensors header, expected model weights") from error
    if length < 8 + size + end:
        raise DataError(f"{file}: found {length:,} bytes, its header expects {8 + size + end:,}")
    return header


def json_object(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: The file holds none, or cannot be read.
    """
    try:
        content = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error}") from error
    except ValueError as error:
        raise DataError(f"{file}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{file}: found {type(content).__name__}, expected an object")
    return content


def _samples(file: Path) -> Iterator[bytes]:
    headers = tensor_headers(file)
    with file.open("rb") as stream:
        start = 8 + int.from_bytes(stream.read(8), "little")
        for name, tensor in headers.items():
            begin, end = tensor["data_offsets"]
            digest = hashlib.sha256(f"{name} {tensor['dtype']} {tensor['shape']}".encode())
            for place in {begin, (begin + end) // 2}:
                stream.seek(start + place)
                digest.update(stream.read(min(_SAMPLE, end - place)))
            yield digest.digest()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
