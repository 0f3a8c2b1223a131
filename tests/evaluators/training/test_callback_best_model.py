"""What is measured so that the best checkpoint can be chosen, and what is chosen; floors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")

from evaluators.evaluator import EvalTarget, Record
from evaluators.training.callback import EvaluationPolicy, Schedule
from evaluators.training.floors import BEST_KEY, BestCheckpoint, ScoreFloor
from evaluators.training.scheduled_run import ScheduledRun
from tests.evaluators.training.test_callback_resume import Scored, make

__all__ = ["make"]  # the fixture

pytestmark = pytest.mark.filterwarnings(
    # torch's DataLoader, told by Trainer to pin memory on a machine without accelerator.
    "ignore:'pin_memory' argument is set as true:UserWarning"
)


@pytest.mark.parametrize(
    ("steps", "evaluates", "expected"),
    [
        (8, {"eval_strategy": "steps", "eval_steps": 2}, [5, 4, 3, 2, 1]),
        (-1, {"eval_strategy": "epoch", "num_train_epochs": 2}, [3, 2, 1]),
    ],
)
def test_the_budget_knows_of_the_runs_that_choose_the_checkpoint(
    make: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
    evaluates: dict[str, Any],
    expected: list[int],
) -> None:
    """Else each of them takes half of the time that is left, and later steps have no tasks."""
    seen, measure = [], ScheduledRun.measure

    def spy(
        moment: ScheduledRun, evaluator: Any, limit: Any, budget: Any, plan: Any, *rest: Any
    ) -> Any:
        seen.append(plan["a"][1])
        return measure(moment, evaluator, limit, budget, plan, *rest)

    monkeypatch.setattr(ScheduledRun, "measure", spy)
    policy = EvaluationPolicy(max_time_share=0.5)
    best = {"metric_for_best_model": "a_success", "greater_is_better": True}
    make([Schedule(Scored("a", 1.0))], policy, steps=steps, **evaluates, **best).train()
    assert seen == expected


class Diverged(Scored):
    """Has scores as they are told, NaN among them."""

    def measure(
        self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        score = self._runs[min(len(self.measured), len(self._runs) - 1)]
        self.measured.append(list(items))
        for item in items:
            finished({"item": item, "scores": {"success": score}, "error": ""})


@pytest.mark.parametrize("key", [BEST_KEY, "a_success"])
def test_what_is_no_number_is_never_the_best(
    make: Callable[..., Any], tmp_path: Path, key: str
) -> None:
    trainer = make(
        [Schedule(Diverged("a", math.nan, math.nan, 0.5)), Schedule(Scored("b", 1.0))],
        EvaluationPolicy(best=BestCheckpoint("a", ScoreFloor("b"))),
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        metric_for_best_model=key,
        greater_is_better=True,
    )
    trainer.train()
    assert trainer.state.best_global_step == 4
    assert json.loads((tmp_path / "best.json").read_text("utf-8"))["step"] == 4


@pytest.mark.parametrize("lost", [True, False])
def test_a_floor_whose_base_is_lost_is_told_on_resume(
    make: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture, lost: bool
) -> None:
    """As in a new output folder: training would go on with no guard, and not say so."""
    policy, saving = (
        EvaluationPolicy(stop_if_general_drops=ScoreFloor("a")),
        {"save_strategy": "steps", "save_steps": 2},
    )
    make([Schedule(Scored("a", 1.0), every=1)], policy, steps=2, **saving).train()
    if lost:
        (tmp_path / "evaluations.jsonl").unlink()
    again = make([Schedule(Scored("a", 1.0), every=1)], policy, steps=3, **saving)
    again.train(resume_from_checkpoint=True)
    assert ("the floor on a has no effect: no record of its baseline" in caplog.text) == lost
