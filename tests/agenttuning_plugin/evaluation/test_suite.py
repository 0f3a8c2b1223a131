"""A suite whose evaluators break or find no task."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agenttuning_plugin.evaluation.suite import Run, Task, run_panel
from evaluators.evaluator import EvalTarget, Evaluator, Record
from tests.agenttuning_plugin.cli.test_evaluate_command import Command, on
from tests.support.endpoint import Endpoint

pytest.importorskip("openai")
pytestmark = pytest.mark.usefixtures("no_data")


def test_one_that_breaks_stops_no_other(
    run: Command, server: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str, settings: Any) -> Any:
        raise RuntimeError(f"{name}: ours\nis the fault")

    monkeypatch.setattr("evaluators.tasks.held_out.card_game.make", broken)
    given = on(server, tmp_path, "--suite", "card_game,mt_bench", "--json")
    code, out, err = run(*given)
    assert code == 1
    reasons = {row["name"]: row["reason"] for row in json.loads(out)["tasks"]}
    assert reasons["card_game"] == "RuntimeError: card_game: ours is the fault"
    assert reasons["database"] == ""
    assert "judge" in reasons["mt_bench"]
    assert "card_game" in err
    assert "mt_bench" not in err
    assert "Traceback" not in out + err
    written = (tmp_path / "errors.txt").read_text("utf-8")
    assert written.startswith("card_game\nTraceback")
    assert "in broken" in written


class Empty(Evaluator):
    """Has nothing left to measure."""

    name, suite, primary = "empty", "general", "success"

    def items(self) -> tuple[str, ...]:
        return ()

    def measure(
        self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        raise AssertionError("there is nothing to measure")


def test_no_task_left_is_a_reason(tmp_path: Path) -> None:
    tasks = [Task("empty", "Empty", "general", Empty)]
    panel = run_panel(tasks, Run(lambda: EvalTarget(None, None), out=tmp_path))
    assert panel.results["empty"].error == "empty: found no task to measure, expected at least one"
    assert panel.broken == []
