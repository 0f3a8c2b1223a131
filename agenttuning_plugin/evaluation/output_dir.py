"""The folder of `agenttuning evaluate`: one model's, with what went wrong beside it."""

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
"""In the folder of results: tracebacks of evaluators that broke."""

MODEL_FILE = "model.json"
"""Beside the transcripts: which model they are of."""

_SMALL = 64 * 1024 * 1024


class CannotMeasureError(AgentTuningError):
    """No task can be measured: there is no model, or the folder is another one's."""


def bind_output_dir(path: Path, heading: Mapping[str, Any]) -> None:
    """Keep results of two models out of one folder.

    Args:
        path: File that says which model the results beside it are of; made if missing.
        heading: What tells the model from others.

    Raises:
        CannotMeasureError: The folder holds another model's.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, json.dumps(heading, indent=1, ensure_ascii=False) + "\n")
        return
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise CannotMeasureError(f"{path}: not JSON: {error}; delete it to go on") from error
    keys = sorted(found.keys() | heading.keys())
    if differing := [key for key in keys if found.get(key) != heading.get(key)]:
        raise CannotMeasureError(
            f"{path}: found results of {found.get('model')!r} ({', '.join(differing)} differ): "
            "name another folder with --out"
        )


def keep_traceback(out: Path | None, name: str) -> None:
    """Write the current error down: worth keeping, but not on the terminal.

    Args:
        out: Folder of results, if there is one.
        name: What broke.
    """
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        with (out / ERRORS_FILE).open("a", encoding="utf-8", errors="replace") as file:
            file.write(f"{name}\n{traceback.format_exc()}\n")


def weights_digest(folder: str) -> str:
    """What tells one model's files from another's of the same name.

    Args:
        folder: Folder of a model or adapter; for a hub id the digest is "".

    Returns:
        Of names, sizes and times of the files; small ones by their content, such as an
        adapter that was copied.
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
    """A model's folder as the same text from wherever it is named; a hub id as it is."""
    place = Path(model).expanduser()
    return str(place.resolve()) if model and place.is_dir() else model
