"""The user's cache folder, and atomic writes of text files."""

from __future__ import annotations

import os
from pathlib import Path

CACHE = Path("~/.cache/agenttuning")
"""The user's cache: the demo's files (recipes/demo.yaml names it too) and environments."""

DATA_VARIABLE = "AGENTTUNING_DATA"
"""Environment variable: a folder with one folder of data for each environment."""


def cache_folder(name: str) -> Path:
    """Cache folder of an environment: what is made once and reused."""
    return CACHE.expanduser() / "environments" / name


def replace_text(path: Path, text: str) -> None:
    """Replace a file at once; who reads it meanwhile finds the old content or the new.

    A process killed here leaves a hidden `.part` file, which the next one replaces. One
    writer of a path at a time.

    Args:
        path: The file; its folder exists.
        text: Its content, written as UTF-8.

    Raises:
        OSError: The file cannot be written; it is left as it was.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            # Else the rename could outlive the content.
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
