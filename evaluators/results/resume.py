"""Transcripts of an evaluation that was cut off: taken up where the weights are the same.

A run that goes on from a checkpoint trains the steps after it again. Where training is
deterministic it comes to the same weights, and what was measured of them need not be
measured again; elsewhere the weights' fingerprint in the heading differs.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataset_builders.errors import ConfigError, DataError
from evaluators.results.evaluations import TRANSCRIPTS
from evaluators.results.transcripts import Journal

LOG = logging.getLogger(__name__)

KEPT = f"{TRANSCRIPTS}.unfinished"
"""Folder beside the transcripts: those of steps that are to be trained again."""


def stash(folder: Path, step: Path) -> None:
    """Put a step's transcripts where `open_journal` looks for them.

    Args:
        folder: The run's output folder.
        step: The step's folder of transcripts.
    """
    target = folder / KEPT / step.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    step.replace(target)


def forget(folder: Path) -> None:
    """Drop what was kept aside and not taken up; called when the run has ended."""
    shutil.rmtree(folder / KEPT, ignore_errors=True)


def open_journal(path: Path, heading: Mapping[str, Any]) -> Journal:
    """The journal of an evaluation at a step, with what an earlier life of the run finished.

    One of other weights or settings, or one that is damaged, is put aside, not continued.

    Args:
        path: Its place.
        heading: What is measured and how, with the weights' fingerprint.
    """
    kept = path.parents[2] / KEPT / path.parent.name / path.name
    if not path.exists() and kept.is_file() and _heading(kept) == heading:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept.replace(path)
        LOG.info("%s: taken up from an evaluation that was cut off", path)
    try:
        return Journal(path, heading)
    except (ConfigError, DataError) as error:
        aside = path.with_suffix(".jsonl.other")
        LOG.warning("%s; it is kept as %s", error, aside.name)
        path.replace(aside)
        return Journal(path, heading)


def _heading(path: Path) -> Any:
    try:
        with path.open(encoding="utf-8", errors="surrogatepass") as file:
            return json.loads(file.readline())
    except (OSError, ValueError, RecursionError):
        return None
