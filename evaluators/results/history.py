"""Results of a previous run in the output folder: keep, discard or archive."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluators.evaluator import RECORDS_FILE
from evaluators.results.evaluations import BEST_FILE, TRANSCRIPTS, lines_of, parse_row
from evaluators.results.resume import forget, stash

LOG = logging.getLogger(__name__)


def archive_previous(folder: Path) -> None:
    """Archive results of a previous run in this folder.

    A run that was interrupted before it measured anything later than its baseline is resumed: its
    baseline transcripts are reused if the model is the same.
    """
    forget(folder)
    base = folder / TRANSCRIPTS / "step-000000"
    rows = [row for line in lines_of(folder) if (row := parse_row(line))]
    if base.is_dir() and not any(row["step"] > 0 for row in rows):
        stash(folder, base)
        if not any((folder / TRANSCRIPTS).iterdir()):
            (folder / TRANSCRIPTS).rmdir()
    for name in (RECORDS_FILE, TRANSCRIPTS, BEST_FILE):
        archive(folder / name)


def archive(path: Path) -> None:
    """Rename a file or folder of a previous run, if there is one, to `NAME.previous-N`."""
    if path.exists():
        number = 1
        while (kept := path.with_name(f"{path.stem}.previous-{number}{path.suffix}")).exists():
            number += 1
        path.replace(kept)


def discard_after_step(folder: Path, step: int) -> list[dict[str, Any]]:
    """Discard results after a checkpoint, which will be measured again.

    Transcripts are stashed, as the steps may lead to the same weights again.

    Args:
        folder: The output folder.
        step: The checkpoint's.

    Returns:
        The remaining rows. Damaged lines, for example after a full disk, are skipped with a
        warning.
    """
    for place in (folder / TRANSCRIPTS).glob("step-*"):
        if place.name.removeprefix("step-").isdecimal() and int(place.name[5:]) > step:
            stash(folder, place)
    records = folder / RECORDS_FILE
    if not records.exists():
        return []
    lines = lines_of(folder)
    rest = lines.pop()  # empty, unless the process was killed during a write
    rows = [parse_row(line) for line in lines]
    kept = [(line, row) for line, row in zip(lines, rows, strict=True) if row]
    if len(kept) < len(lines):
        LOG.warning("%s: %d damaged lines skipped", records, len(lines) - len(kept))
    kept = [pair for pair in kept if pair[1]["step"] <= step]
    if rest or len(kept) < len(lines):
        LOG.info("%s: %d of %d lines kept", records, len(kept), len(lines))
        shorter = records.with_suffix(".shorter.jsonl")
        shorter.write_text("".join(line + "\n" for line, _ in kept), encoding="utf-8")
        shorter.replace(records)
    return [row for _, row in kept]


def best_effort_write(write: Callable[[], None], *, strict: bool) -> None:
    """Write results; unless strict, a full disk neither ends training nor blocks other ranks.

    Args:
        write: Writes them.
        strict: Whether it does end training.
    """
    try:
        write()
    except OSError as error:
        if strict:
            raise
        LOG.warning("results are only in the log: %s", error)
