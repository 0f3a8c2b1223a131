"""Output folder of `agenttuning evaluate`: bound to one model; keeps tracebacks."""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataset_builders.errors import AgentTuningError
from dataset_builders.storage import replace_text

ERRORS_FILE = "errors.txt"
"""Tracebacks of failed evaluators, in the folder of results."""

MODEL_FILE = "model.json"
"""File beside the transcripts that identifies their model."""

_SMALL = 64 * 1024 * 1024


class CannotMeasureError(AgentTuningError):
    """No task can be measured: there is no model, or the folder belongs to another one."""


def bind_output_dir(path: Path, heading: Mapping[str, Any]) -> None:
    """Prevent mixing results of two models in one folder.

    Args:
        path: File that identifies the model of the results beside it; created if missing.
        heading: Identity of the model.

    Raises:
        CannotMeasureError: The folder has another model's results.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, json.dumps(heading, indent=1, ensure_ascii=False) + "\n")
        return
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise CannotMeasureError(f"{path}: not JSON: {error}; delete it to continue") from error
    keys = sorted(found.keys() | heading.keys())
    if differing := [key for key in keys if found.get(key) != heading.get(key)]:
        raise CannotMeasureError(
            f"{path}: found results of {found.get('model')!r} ({', '.join(differing)} differ): "
            "name another folder with `out`"
        )


def keep_traceback(out: Path | None, name: str) -> None:
    """Append the current error's traceback to a file: useful, but not on the terminal.

    Args:
        out: Folder of results, if there is one.
        name: What failed.
    """
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        with (out / ERRORS_FILE).open("a", encoding="utf-8", errors="replace") as file:
            file.write(f"{name}\n{traceback.format_exc()}\n")


def weights_digest(folder: str) -> str:
    """Return a digest that distinguishes models of the same name by their files.

    Args:
        folder: Folder of a model or adapter; for a hub id the digest is "".

    Returns:
        Digest of names, sizes and times of the files; of small files, such as those of a copied
        adapter, by content.
    """
    place = Path(folder).expanduser()
    if not folder or not place.is_dir():
        return ""
    digest = hashlib.sha256()
    for file in sorted(place.glob("*")):
        if file.suffix not in (".json", ".safetensors", ".bin", ".jinja") or not file.is_file():
            continue
        facts = file.stat()
        digest.update(f"{file.name} {facts.st_size} ".encode())
        if facts.st_size <= _SMALL:
            digest.update(file.read_bytes())
        else:
            digest.update(str(facts.st_mtime_ns).encode())
    return digest.hexdigest()[:16]


def resolved(model: str) -> str:
    """Return a canonical path of a model's folder; a hub id unchanged."""
    place = Path(model).expanduser()
    return str(place.resolve()) if model and place.is_dir() else model
