"""Resume interrupted evaluations from their transcripts, if the weights are the same.

A run resumed from a checkpoint repeats the steps after it. If training is deterministic, it reaches
the same weights, which need not be measured again; otherwise the weights' fingerprint in the
heading differs.
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
"""Folder beside the transcripts, for those of steps that will be repeated."""


def stash(folder: Path, step: Path) -> None:
    """Move a step's transcripts to where `open_journal` searches for them.

    Args:
        folder: The run's output folder.
        step: The step's folder of transcripts.
    """
    target = folder / KEPT / step.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    step.replace(target)


def forget(folder: Path) -> None:
    """Delete stashed transcripts that were not reused; called at the end of the run."""
    shutil.rmtree(folder / KEPT, ignore_errors=True)


def open_journal(path: Path, heading: Mapping[str, Any]) -> Journal:
    """Open the journal of an evaluation at a step, with items finished by a previous run.

    A journal of other weights or settings, or a damaged one, is archived instead of resumed.

    Args:
        path: The file.
        heading: What is measured and how, with the weights' fingerprint.
    """
    kept = path.parents[2] / KEPT / path.parent.name / path.name
    if not path.exists() and kept.is_file() and _heading(kept) == heading:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept.replace(path)
        LOG.info("%s: resumed from an interrupted evaluation", path)
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
