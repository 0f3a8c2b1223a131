"""The checkpoint from which an interrupted run resumes."""

from __future__ import annotations

import json
from pathlib import Path

_STATE = "trainer_state.json"


def last_checkpoint(folder: Path) -> Path | None:
    """Return a run's last whole checkpoint, if it has one.

    The trainer writes `trainer_state.json` last, so a checkpoint without it was interrupted.
    """
    found = [
        (int(place.name[11:]), place)
        for place in folder.glob("checkpoint-*")
        if place.name[11:].isdecimal() and _is_whole(place)
    ]
    return max(found)[1] if found else None


def _is_whole(place: Path) -> bool:
    try:
        return bool(json.loads((place / _STATE).read_text("utf-8")))
    except (OSError, ValueError):
        return False
