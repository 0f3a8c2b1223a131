"""`evaluations.jsonl`: one line per evaluation, and the location of its transcripts."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from dataset_builders.storage import replace_text
from evaluators.evaluator import RECORDS_FILE, EvalResult, Metric

BEST_FILE = "best.json"
"""File in the output folder with the best step."""

_log = logging.getLogger(__name__)

TRANSCRIPTS = "transcripts"
"""Folder beside the file: `<evaluator>.jsonl`, or `step-<number>/<evaluator>.jsonl`."""


def transcript_path(folder: Path, evaluator: str, step: int | None = None) -> Path:
    """Return the file of an evaluation's complete records, with messages.

    Args:
        folder: The run's folder.
        evaluator: Name of the evaluator.
        step: Optimizer step; None for an evaluation outside of training.
    """
    place = folder / TRANSCRIPTS
    if step is not None:
        place /= f"step-{step:06}"
    return place / f"{evaluator}.jsonl"


def row_of(step: int, result: EvalResult) -> dict[str, Any]:
    """Convert an evaluation to a row of the file: its records without messages."""
    row = asdict(result)
    row["records"] = [
        {key: value for key, value in record.items() if key != "messages"}
        for record in row["records"]
    ]
    # JSON has no infinity, which is the standard error of a single item, and no NaN, which is
    # the loss of a model that has diverged.
    row["metrics"] = {
        name: {key: value if math.isfinite(value) else None for key, value in metric.items()}
        for name, metric in row["metrics"].items()
    }
    return {"step": step, **row}


def metric_of(row: Mapping[str, Any]) -> Metric:
    """Restore a figure from `row_of`'s output.

    Raises:
        TypeError: It is not a figure.
    """
    without = {"value": math.nan, "stderr": math.inf, "low": -math.inf, "high": math.inf}
    known: dict[str, Any] = {k: without[k] if v is None else v for k, v in row.items()}
    return Metric(**known)


def evaluation_of(row: Mapping[str, Any]) -> EvalResult:
    """Restore an evaluation, without messages, from a row of the file."""
    known = {each.name for each in fields(EvalResult)}
    given = {key: value for key, value in row.items() if key in known}
    metrics = {name: metric_of(figures) for name, figures in row.get("metrics", {}).items()}
    whole = {"num_errors": 0, "seconds": 0.0, **given}
    return EvalResult(**{**whole, "metrics": metrics, "records": tuple(row.get("records", ()))})


def write_record(folder: Path, step: int, result: EvalResult) -> None:
    """Append an evaluation to the folder's `evaluations.jsonl`, and log its warning."""
    if result.warning:
        _log.warning("step %d: %s: %s", step, result.evaluator, result.warning)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / RECORDS_FILE).open("a", encoding="utf-8", errors="replace") as file:
        file.write(_line(row_of(step, result)))


def replace_record(folder: Path, step: int, result: EvalResult) -> None:
    """Write an evaluation, replacing an earlier one of the same evaluator and step."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RECORDS_FILE
    lines = path.read_text("utf-8").split("\n") if path.exists() else []
    kept = [line for line in lines if line and not _is_of(line, step, result.evaluator)]
    replace_text(path, "".join(f"{line}\n" for line in kept) + _line(row_of(step, result)))


def has_figures(folder: Path, step: int, evaluator: str) -> bool:
    """Whether the folder has an evaluation with figures of the evaluator at the step."""
    path = folder / RECORDS_FILE
    lines = path.read_text("utf-8").split("\n") if path.exists() else []
    return any(
        json.loads(line).get("metrics") for line in lines if line and _is_of(line, step, evaluator)
    )


def _line(row: dict[str, Any]) -> str:
    text = json.dumps(row, ensure_ascii=False) + "\n"
    # A model's output may contain lone surrogates, which UTF-8 cannot encode.
    return text.encode("utf-8", "replace").decode("utf-8")


def _is_of(line: str, step: int, evaluator: str) -> bool:
    try:
        row = json.loads(line)
    except ValueError:
        return False  # Not ours to delete; its reader reports it.
    return isinstance(row, dict) and (row.get("step"), row.get("evaluator")) == (step, evaluator)
