"""The table and JSON of `agenttuning evaluate` say what makes a figure doubtful, and what it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.evaluators.tasks.general.test_gsm8k import folder
from tests.support.endpoint import Endpoint, serving

pytest.importorskip("openai", reason="pip install 'agenttuning-plugin[collect]'")

Run = Callable[..., tuple[int, str, str]]
CUT = {"content": "First we add 2 and 3,5", "finish_reason": "length"}


def measured(run: Run, data: Path, *more: str) -> tuple[int, str]:
    with serving(Endpoint(lambda messages: dict(CUT))) as server:
        code, out, _ = run(
            "evaluate", "--model", server.url, "--model-name", "m", "--suite", "gsm8k",
            "--option", f"data={data}", "--option", "shots=2", *more,
        )  # fmt: skip
    return code, out


def test_the_table_warns_and_names_the_main_figure(run: Run, tmp_path: Path) -> None:
    code, out = measured(run, folder(tmp_path))
    assert code == 0
    lines = [line for line in out.splitlines() if line.startswith("GSM8K: ")]
    assert lines == [
        "GSM8K: the score is accuracy by the paper's rule (the last run of digits), because it is "
        "comparable with the paper's table; accuracy_corrected reads numbers as they are written "
        "(accuracy_corrected 0.0)",
        "GSM8K: warning: 3 of 3 answers are cut at the token limit",
    ]


def test_json_and_the_folder_have_the_warning(run: Run, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    code, told = measured(run, folder(data), "--json", "--out", str(out))
    [task] = json.loads(told)["tasks"]
    assert (code, task["warning"]) == (0, "3 of 3 answers are cut at the token limit")
    row: dict[str, Any] = json.loads((out / "evaluations.jsonl").read_text())
    assert row["warning"] == task["warning"]
    assert [record["cut"] for record in row["records"]] == [1, 1, 1]
    # Answers that are on disk are warned of again.
    _, told = measured(run, data, "--json", "--out", str(out))
    assert json.loads(told)["tasks"][0]["warning"] == task["warning"]
