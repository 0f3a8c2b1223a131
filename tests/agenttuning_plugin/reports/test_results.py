"""Base against tuned: the demo's table."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agenttuning_plugin.reports.change_table import table
from agenttuning_plugin.reports.compare import compare_run, unmeasured
from dataset_builders.errors import DataError, SourceNotFoundError
from evaluators.evaluator import EvalResult
from evaluators.results.evaluations import read_evaluations, write_record
from evaluators.stats.intervals import proportion, ratio


def play(successes: int, n: int) -> EvalResult:
    records: list[dict[str, Any]] = [
        {
            "item": f"t{i}",
            "scores": {"success": float(i < successes), "valid_format": 1.0},
            "error": "",
        }
        for i in range(n)
    ]
    metrics = {"success": proportion(successes, n), "valid_format": proportion(n, n)}
    return EvalResult("database", metrics, 0, 1.0, tuple(records), primary="success")


def loss(values: list[float]) -> EvalResult:
    records = [
        {"item": str(i), "scores": {"loss": value / 10}, "weight": 10, "error": ""}
        for i, value in enumerate(values)
    ]
    return EvalResult(
        *("general", {"loss": ratio(values, [10.0] * len(values))}, 0, 1.0, tuple(records)),
        suite="general",
        primary="loss",
    )


def test_first_and_last_are_set_side_by_side(tmp_path: Path) -> None:
    for step, results in (
        (0, [play(0, 8), loss([10.0, 20.0])]),
        (5, [play(3, 8)]),
        (9, [play(7, 8), loss([11.0, 21.0])]),
    ):
        for result in results:
            write_record(tmp_path, step, result)
    rows = {row.label: row for row in compare_run(read_evaluations(tmp_path))}
    success = rows["database success"]
    assert (success.change.before, success.change.after) == (0.0, 7 / 8)
    assert success.change.value == 7 / 8
    assert success.change.p_value == 2 / 2**7
    # Each conversation rose by a tenth of a nat a token: the change is certain, though
    # the losses themselves are far apart.
    change = rows["general loss"].change
    assert change.value == pytest.approx(0.1)
    assert change.stderr == pytest.approx(0.0, abs=1e-12)

    console = Console(width=80, record=True)
    console.print(table(list(rows.values()), title="title"))
    shown = console.export_text()
    assert "87.5%   +87.5 pts [+" in shown
    assert "0.016" in shown
    assert "+6.7 % [+6.7, +6.7]" in shown
    assert [word for word in ("held-in", "general\n", "…") if word in shown.replace(" ", "")] == [
        "held-in",
        "general\n",
    ]
    assert all(len(line) <= 80 for line in shown.split("\n"))


def test_a_single_item_has_no_spread_and_the_file_stays_json(tmp_path: Path) -> None:
    single = loss([10.0])
    write_record(tmp_path, 0, single)
    line = (tmp_path / "evaluations.jsonl").read_text("utf-8")
    assert "Infinity" not in line
    assert read_evaluations(tmp_path)[0]["metrics"] == single.metrics


def test_a_model_that_diverged_can_be_read_and_compared(tmp_path: Path) -> None:
    write_record(tmp_path, 0, loss([10.0, 20.0]))
    write_record(tmp_path, 5, loss([math.nan, math.nan]))
    (row,) = compare_run(read_evaluations(tmp_path))
    assert math.isnan(row.change.after)
    # No number is no evidence of a change.
    assert math.isnan(row.change.p_value)
    console = Console(width=80, record=True)
    console.print(table([row], title="title"))
    assert "<.001" not in console.export_text()


def test_what_was_not_measured_is_told(tmp_path: Path) -> None:
    write_record(tmp_path, 0, play(1, 2))
    write_record(tmp_path, 0, EvalResult("mmlu", {}, 0, 0.0, error="mmlu: no data"))
    assert unmeasured(read_evaluations(tmp_path)) == ["mmlu: no data"]


def test_a_folder_without_results_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"evaluations\.jsonl: no such file"):
        read_evaluations(tmp_path)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    write_record(tmp_path, 0, play(1, 2))
    with (tmp_path / "evaluations.jsonl").open("a") as file:
        file.write('{"step": 1}\n')
    with pytest.raises(DataError, match=r"evaluations\.jsonl:2: not an evaluation"):
        read_evaluations(tmp_path)


def test_line_separators_in_a_record_do_not_end_it(tmp_path: Path) -> None:
    said = [{"item": "t", "said": "a\u2028b\x85c\x1cd"}]
    write_record(tmp_path, 0, EvalResult("database", {}, 0, 1.0, tuple(said)))
    (row,) = read_evaluations(tmp_path)
    assert row["records"] == said
