"""`evaluations.jsonl`: one line per evaluation, and the location of its transcripts."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from dataset_builders.errors import DataError, SourceNotFoundError
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
    metrics = {
        name: figures if isinstance(figures, Metric) else metric_of(figures)
        for name, figures in row.get("metrics", {}).items()
    }
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
    """Write an evaluation in place of an earlier one of the same evaluator and step."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = [line for line in lines_of(folder) if line and not _is_of(line, step, result.evaluator)]
    text = "".join(f"{line}\n" for line in kept) + _line(row_of(step, result))
    replace_text(folder / RECORDS_FILE, text)


def has_figures(folder: Path, step: int, evaluator: str) -> bool:
    """Whether the folder holds an evaluation of the evaluator at the step that measured it."""
    return any(
        json.loads(line).get("metrics")
        for line in lines_of(folder)
        if _is_of(line, step, evaluator)
    )


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """Read the evaluations of a run, in chronological order.

    Raises:
        SourceNotFoundError: The folder holds none.
        DataError: A line has another format.
    """
    path = folder / RECORDS_FILE
    if not path.is_file():
        raise SourceNotFoundError(f"{path}: no such file; has a run with evaluators ended here?")
    rows: list[dict[str, Any]] = []
    lines = lines_of(folder)
    for number, line in enumerate(lines if lines[-1] else lines[:-1], 1):
        try:
            row = json.loads(line)
            row["metrics"] = {key: metric_of(value) for key, value in row["metrics"].items()}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}:{number}: not an evaluation: {error}") from error
        rows.append(row)
    return rows


def lines_of(folder: Path) -> list[str]:
    """Lines of the folder's `evaluations.jsonl`; the last is empty unless it was cut off."""
    path = folder / RECORDS_FILE
    # Not splitlines: a model's text may contain separators that JSON does not escape.
    return path.read_text("utf-8", errors="replace").split("\n") if path.exists() else []


def parse_row(line: str) -> dict[str, Any] | None:
    """A line as a row; None if it is damaged."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(row, dict) and isinstance(row.get("step"), int) and "evaluator" in row
    return row if whole else None


def _line(row: dict[str, Any]) -> str:
    text = json.dumps(row, ensure_ascii=False) + "\n"
    # A model's broken output may hold lone surrogates, which UTF-8 cannot encode.
    return text.encode("utf-8", "replace").decode("utf-8")


def _is_of(line: str, step: int, evaluator: str) -> bool:
    row = parse_row(line)  # A damaged line is not ours to delete; its reader reports it.
    return row is not None and (row["step"], row["evaluator"]) == (step, evaluator)
