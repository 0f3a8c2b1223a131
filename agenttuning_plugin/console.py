"""Consoles of the commands, plain text for them, and errors of unwritable files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from dataset_builders.errors import AgentTuningError, StorageError

console = Console()
"""Results."""

errors = Console(stderr=True)
"""Console for errors and messages."""


def plain(text: str) -> str:
    """Return text that rich prints literally."""
    return text.replace("[", r"\[")


def duration(seconds: float) -> str:
    """Return a duration, such as "40 s", "3 min" or "2.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def writing(place: Path | None) -> Iterator[None]:
    """Convert write failures, such as a full disk, to a one-line error.

    Args:
        place: The file or folder being written; None if nothing is.

    Raises:
        StorageError: It cannot be written.
    """
    try:
        yield
    except AgentTuningError:
        raise
    except OSError as error:
        if place is None:
            raise
        raise StorageError(f"{place}: cannot be written: {error.strerror or error}") from error
