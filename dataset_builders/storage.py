"""The user's cache folder, atomic writes of text files, and reads of appended ones."""

from __future__ import annotations

import os
from pathlib import Path

CACHE = Path("~/.cache/agenttuning")
"""The user's cache: the demo's files (recipes/demo.yaml names it too) and environments."""

DATA_VARIABLE = "AGENTTUNING_DATA"
"""Environment variable: a folder with one folder of data for each environment."""


def cache_folder(name: str) -> Path:
    """Return the cache folder of an environment, for data that is built once and reused."""
    return CACHE.expanduser() / "environments" / name


def complete_lines(path: Path) -> list[bytes]:
    """Return the lines of a file that is appended to, without their newlines.

    A last line without a newline is left out: it is being written, or its process was killed.
    """
    return path.read_bytes().split(b"\n")[:-1]


def replace_text(path: Path, text: str) -> None:
    """Write a text file atomically.

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
            # Otherwise the rename could be durable before the content is.
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
