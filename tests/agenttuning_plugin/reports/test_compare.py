"""`agenttuning compare` and `errors`, on folders as evaluations leave them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from agenttuning_plugin.cli.main import app
from agenttuning_plugin.reports.change_table import table as change_table
from agenttuning_plugin.reports.compare import compare_evaluations, pick
from agenttuning_plugin.reports.failures import read_rates, table
from dataset_builders.errors import ConfigError
from evaluators.evaluator import EvalResult
from evaluators.results.evaluations import write_record
from evaluators.stats.aggregate import summarise


def evaluation(name: str, values: list[float], macro: bool = False, **more: Any) -> EvalResult:
    records = [
        {
            "item": f"{name}-test-{n}",
            "scores": {"success": value, "reward": value},
            "error": "",
            "group": "even" if n % 2 == 0 and n else "odd",
            "failures": [] if value else ["refusal"],
        }
        for n, value in enumerate(values)
    ]
    metrics = summarise(records, macro=macro)
    return EvalResult(name, metrics, 0, 1.0, tuple(records), primary="success", macro=macro, **more)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    a, b = tmp_path / "base", tmp_path / "tuned"
    write_record(a, 0, evaluation("os", [0.0] * 6 + [1.0], about={"prompt": "own:1"}))
    write_record(a, 0, evaluation("database", [1.0, 0.0, 0.0, 0.0], macro=True))
    write_record(b, 0, evaluation("os", [0.0] * 8))
    write_record(b, 5, evaluation("os", [1.0] * 6 + [0.0, 1.0], about={"prompt": "own:2"}))
    write_record(b, 5, evaluation("database", [1.0, 1.0, 1.0, 0.0], macro=True))
    return a, b


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_two_folders_are_compared_task_by_task(folders: tuple[Path, Path]) -> None:
    done = run("compare", *folders)
    assert done.exit_code == 0, done.output
    (system, database) = json.loads(run("compare", *folders, "--json").stdout)
    assert (system["before"], system["after"], system["n"]) == (
        pytest.approx(1 / 7),
        pytest.approx(6 / 7),
        7,
    )
    assert system["better"] == [f"os-test-{n}" for n in range(6)]
    assert system["worse"] == ["os-test-6"]
    assert system["only_second"] == 1
    assert system["differs"] == ["prompt"]
    # A mean of means, as it was measured: odd (3 tasks), even (1 task).
    assert (database["before"], database["after"]) == (pytest.approx(1 / 6), pytest.approx(5 / 6))
    text = done.output
    assert "os success better (6): os-test-0, os-test-1" in text
    assert "measured differently: prompt differ" in text
    assert "1 only in the second are left out" in " ".join(text.split())


def test_one_run_is_compared_with_its_own_start(folders: tuple[Path, Path]) -> None:
    (system,) = json.loads(run("compare", folders[1], "--json", "--first-step", 0).stdout)
    assert (system["before"], system["n"]) == (0.0, 8)
    found = pick(folders[1], None, last=False)
    assert found["os"]["step"] == 0
    assert found["database"]["step"] == 5


def test_every_figure_on_request(folders: tuple[Path, Path]) -> None:
    rows = json.loads(run("compare", *folders, "--json", "--all-figures").stdout)
    assert [row["figure"] for row in rows if row["evaluator"] == "os"] == ["success", "reward"]


def test_what_cannot_be_compared_is_said(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"step: found 7, expected one of \[0, 5\]"):
        pick(folders[1], 7)
    write_record(tmp_path / "c", 0, evaluation("mmlu", [1.0]))
    with pytest.raises(ConfigError, match="nothing to compare: the first has os, database"):
        compare_evaluations(pick(folders[0], None), pick(tmp_path / "c", None))


def test_what_only_one_of_them_measured_is_said(folders: tuple[Path, Path]) -> None:
    write_record(folders[0], 0, evaluation("alfworld", [1.0]))
    write_record(folders[1], 5, EvalResult("alfworld", {}, 0, 0.0, error="no game data"))
    write_record(folders[1], 5, evaluation("webshop", [1.0]))
    other = evaluation("mmlu", [1.0, 0.0])
    write_record(folders[0], 0, replace(other, records=other.records[:1]))
    write_record(folders[1], 5, replace(other, records=other.records[1:]))
    text = run("compare", *folders).stderr
    assert "alfworld: not measured in the second\n" in text
    assert "webshop: not measured in the first\n" in text
    said = "mmlu: no task in common: the first measured 1 of 1 items, such as "
    assert said in " ".join(text.split())
    assert "database:" not in text


def test_why_items_differ_is_said(tmp_path: Path) -> None:
    own = evaluation("database", [1.0, 0.0], about={"tasks": "generated"})
    other = replace(evaluation("database", [1.0], about={"tasks": "agentbench"}), records=())
    item = {**own.records[0], "item": "database-test-agentbench-000"}
    write_record(tmp_path / "a", 0, own)
    write_record(tmp_path / "b", 0, replace(other, records=(item,)))
    done = run("compare", tmp_path / "a", tmp_path / "b")
    assert done.exit_code == 1
    assert (
        "database: tasks is generated and agentbench, the first measured 2 of 2 items, such as "
        "database-test-0, the second measured 1 of 1 items, such as database-test-agentbench-000"
    ) in str(done.exception)


def test_failure_modes_by_task_and_step(folders: tuple[Path, Path]) -> None:
    done = run("errors", folders[1])
    assert done.exit_code == 0
    rows = json.loads(run("errors", folders[1], "--json").stdout)
    found = {(row["evaluator"], row["step"]): row["failures"]["refusal"]["value"] for row in rows}
    assert found == {("os", 0): 1.0, ("os", 5): 1 / 8, ("database", 5): 1 / 4}


def test_the_table_of_failure_modes_is_readable_in_80_columns(tmp_path: Path) -> None:
    for name in ("knowledge_graph", "science_world"):
        write_record(tmp_path, 1000, evaluation(name, [0.0]))
    console = Console(width=80, record=True)
    console.print(table(read_rates(tmp_path)))
    shown = console.export_text()
    assert "knowledge_graph" in shown
    assert "science_world" in shown
    assert "\u2026" not in shown


def test_figures_are_not_cut_in_80_columns(tmp_path: Path) -> None:
    write_record(tmp_path, 0, evaluation("endpoint_knowledge_graph", [0.0, 1.0] * 60))
    rows = pick(tmp_path, None)
    console = Console(width=80, record=True)
    console.print(
        change_table(compare_evaluations(rows, rows), "a" * 30, "results-of-step-900", flips=True)
    )
    shown = console.export_text()
    assert "\u2026" not in shown
    assert all(len(line) <= 80 for line in shown.split("\n"))
    assert "1.000" in shown


def test_one_step_alone_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    write_record(tmp_path, 0, evaluation("database", [1.0, 0.0]))
    done = run("compare", tmp_path)
    assert done.exit_code == 1
    assert isinstance(done.exception, ConfigError)
    assert "found one step, expected several" in str(done.exception)
