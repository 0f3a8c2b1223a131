"""Consoles of the commands, text for them, and errors of files that cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from dataset_builders.errors import AgentTuningError, StorageError

console = Console()
"""Results."""

errors = Console(stderr=True)
"""Errors, and what is said beside a result."""


def plain(text: str) -> str:
    """Text that rich prints as it is."""
    return text.replace("[", r"\[")


@contextmanager
def writing(place: Path | None) -> Iterator[None]:
    """Say in one line that a place cannot be written, as on a full disk.

    Args:
        place: What is written within; none where nothing is.

    Raises:
        StorageError: It cannot be.
    """
    try:
        yield
    except AgentTuningError:
        raise
    except OSError as error:
        if place is None:
            raise
        raise StorageError(f"{place}: cannot be written: {error.strerror or error}") from error
