"""Which rounds are accepted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from agenttuning_plugin.rounds.deciding import decide, floors_of
from dataset_builders.errors import ConfigError
from evaluators.stats.aggregate import summarise
from evaluators.training.floors import BestCheckpoint, ScoreFloor
from evaluators.training.schedule import EvaluationPolicy

Row = Mapping[str, Any]


def row(name: str, suite: str, figure: str, values: Sequence[float], **about: str) -> Row:
    records = [{"item": f"{name}-{n}", "scores": {figure: v}} for n, v in enumerate(values)]
    metrics = summarise(records)
    return {
        "evaluator": name, "suite": suite, "primary": figure, "metrics": metrics,
        "records": records, "about": about, "step": 1,
    }  # fmt: skip


def rows(solved: int, loss: float = 1.0, n: int = 20, **about: str) -> dict[str, Row]:
    success = [float(place < solved) for place in range(n)]
    losses = [loss + place / 100 for place in range(12)]
    return {
        "database": row("database", "held-in", "success", success, **about),
        "general": row("general", "general", "loss", losses),
    }


def judged(before: dict[str, Row], after: dict[str, Row], **given: Any) -> dict[str, Any]:
    floors = given.pop("floors", floors_of(EvaluationPolicy(), after))
    base = given.pop("base", rows(0))
    return decide("database", base, before, after, alpha=0.05, floors=floors, **given)


def test_five_more_tasks_and_none_fewer_are_a_rise() -> None:
    facts = judged(rows(10), rows(15))
    assert facts["accepted"]
    assert facts["p_value"] == pytest.approx(2**-5)
    assert facts["learned"] == [f"database-{n}" for n in range(10, 15)]


@pytest.mark.parametrize("solved", [14, 10, 5], ids=["too few", "none", "fewer"])
def test_less_is_refused(solved: int) -> None:
    facts = judged(rows(10), rows(solved))
    assert not facts["accepted"]
    assert "did not rise significantly: 0.500 to" in facts["reasons"][0]


def test_a_broken_floor_refuses_a_rise() -> None:
    facts = judged(rows(10), rows(20, loss=1.2))
    assert not facts["accepted"]
    assert facts["reasons"][0].startswith("floor of general loss broken: 1.055 to 1.255, more than")
    # A smaller loss of general ability is tolerated.
    assert judged(rows(10), rows(20, loss=1.04))["accepted"]


def test_floors_are_below_the_base_and_not_the_last_model() -> None:
    drifted = rows(10, loss=1.04)
    facts = judged(drifted, rows(20, loss=1.08))
    assert "more than 5% worse" in facts["reasons"][0]
    assert judged(drifted, rows(20, loss=1.08), base={})["accepted"]  # no base: the last one


def test_a_floor_that_was_not_measured_refuses() -> None:
    after = rows(20)
    del after["general"]
    facts = judged(rows(10), after, floors=[ScoreFloor()])
    assert facts["reasons"] == ["floor of general: not measured on common items before and after"]


def test_a_diverged_model_is_refused() -> None:
    facts = judged(rows(10), rows(20, loss=math.nan))
    assert "floor of general loss broken" in facts["reasons"][0]


def test_other_settings_of_the_evaluator_refuse() -> None:
    facts = judged(rows(10, prompt="own:1"), rows(20, prompt="own:2"))
    assert facts["reasons"] == ["database success: measured differently: prompt"]


def test_without_common_tasks_nothing_is_judged() -> None:
    other = {"database": row("database", "held-in", "success", [])}
    with pytest.raises(ConfigError, match="found no task that was measured before and after"):
        judged(rows(10), other, floors=[])


def test_the_recipes_floors_come_first() -> None:
    policy = EvaluationPolicy(best=BestCheckpoint(floor=ScoreFloor(by=0.02)))
    found = {floor.evaluator: floor.by for floor in floors_of(policy, rows(10))}
    assert found == {"general": 0.02}
    assert {f.evaluator: f.by for f in floors_of(EvaluationPolicy(), rows(1))} == {"general": 0.05}


def test_a_general_figure_that_was_not_measured_again_refuses_the_round() -> None:
    before, after = rows(10), rows(20)
    del after["general"]
    facts = judged(before, after, floors=floors_of(EvaluationPolicy(), before | after))
    assert not facts["accepted"]
    assert "floor of general: not measured" in facts["reasons"][0]
