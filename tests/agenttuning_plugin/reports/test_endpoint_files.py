"""Results of an evaluation on a server, as the trainer's process reads them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from agenttuning_plugin.reports.endpoint_files import results_in
from dataset_builders.errors import DataError
from evaluators.evaluator import RECORDS_FILE, EvalResult, Metric
from evaluators.results.evaluations import write_record

RESULT = EvalResult(
    "os",
    {"success": Metric(1.0, math.inf, -math.inf, math.inf, 1)},
    0,
    1.0,
    # A separator of lines to Python, but not to JSON.
    records=({"item": "a\u2028b", "scores": {"success": 1.0}, "error": ""},),
    suite="held-in",
    primary="success",
)


def test_results_are_what_was_written_under_names_of_their_own(tmp_path: Path) -> None:
    assert results_in(tmp_path) == []
    write_record(tmp_path, 3, RESULT)
    (found,) = results_in(tmp_path)
    assert found.evaluator == "endpoint_os"
    assert (found.metrics, found.records) == (RESULT.metrics, RESULT.records)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    write_record(tmp_path, 3, RESULT)
    with (tmp_path / RECORDS_FILE).open("a") as file:
        file.write("{\n")
    with pytest.raises(DataError, match=r"evaluations\.jsonl:2: not an evaluation"):
        results_in(tmp_path)
