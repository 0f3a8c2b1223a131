"""Locate an environment's data on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dataset_builders.downloads.sources import holds, source_of
from dataset_builders.errors import SourceNotFoundError
from dataset_builders.storage import DATA_VARIABLE, cache_folder


def find_data(
    name: str, given: str | Path | None, names: Sequence[str], needs: Sequence[str], what: str
) -> Path:
    """Find the data folder of an environment.

    Searched in order: the given folder, `$AGENTTUNING_DATA/<one of names>`, the cache.

    Args:
        name: The environment.
        given: The folder that the user named, or None.
        names: Names that the folder may have within `$AGENTTUNING_DATA`.
        needs: Files, relative to the folder, that it must contain; for a glob pattern, at least one
            match.
        what: What the files are and where they come from, for the message.

    Raises:
        SourceNotFoundError: No folder has all the files; the message is one line and states what to
            put where.
    """
    root = os.environ.get(DATA_VARIABLE)
    if given is not None:
        places = [Path(given)]
    else:
        places = [Path(root) / each for each in dict.fromkeys((*names, name))] if root else []
        places.append(cache_folder(name))
    for place in places:
        if all(holds(place, need) for need in needs):
            return place
    lacking = [need for need in needs if not holds(places[-1], need)]
    raise SourceNotFoundError(
        f"{name}: no {', '.join(lacking)} in {' or '.join(map(str, places))}: put {what} there, "
        f"or name its folder (`data`, or {DATA_VARIABLE} for a folder of such folders)"
        f"{setup_hint(name)}"
    )


def setup_hint(name: str) -> str:
    """Return the end of a message that names the command which fetches missing data, or ""."""
    return f"; or run: agenttuning env setup {name}" if source_of(name) else ""
