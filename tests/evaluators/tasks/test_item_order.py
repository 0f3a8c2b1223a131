"""Training, `evaluate --limit` and a server's evaluation take the same items."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenttuning_plugin.config.recipe import AgentTuningSection
from dataset_builders.environments import load_environment
from evaluators.tasks.agent_task import AgentTaskEvaluator
from evaluators.tasks.item_order import fixed_order
from evaluators.tasks.registry import SuiteSettings, select


@given(st.sets(st.text()), st.text(), st.randoms())
def test_an_items_place_depends_on_its_name_alone(items: set[str], more: str, rng: object) -> None:
    mixed = sorted(items)
    rng.shuffle(mixed)  # type: ignore[attr-defined]
    order = fixed_order(mixed)
    assert sorted(order) == sorted(items)
    assert order == fixed_order(sorted(items))
    assert tuple(each for each in fixed_order({*items, more}) if each != more) == tuple(
        each for each in order if each != more
    )


def test_a_beginning_is_a_sample_of_the_whole() -> None:
    tasks = load_environment("database").task_ids("test")
    first = fixed_order(tasks)[:50]
    halves = sum(task < tasks[len(tasks) // 2] for task in first)
    assert 15 <= halves <= 35


def test_training_and_evaluate_take_the_same_first_items() -> None:
    pytest.importorskip("transformers")
    from agenttuning_plugin.evaluation.from_config import schedules

    config = {"type": "agent_task", "environment": "database", "num_tasks": 7}
    section = {"agent": "a", "general": "b", "evaluators": [config]}
    made, _ = schedules(AgentTuningSection.model_validate(section), None)
    in_training = made[0].evaluator
    (benchmark,) = select(["database"])
    settings = SuiteSettings(options={"database": {"tasks": "generated"}})
    for seed in (0, 5):
        evaluated = benchmark.evaluator(SuiteSettings(options=settings.options, seed=seed))
        assert in_training.items() == evaluated.items()[:7]
    # And say the same of where their tasks come from.
    assert in_training.about() == evaluated.about()
    assert AgentTaskEvaluator("database", num_tasks=3).items() == in_training.items()[:3]


@pytest.mark.parametrize("name", ["card_game", "database"])
def test_a_task_of_the_panel_takes_them_too(name: str) -> None:
    pytest.importorskip("transformers")
    from agenttuning_plugin.evaluation.from_config import schedules

    entry = {"type": "benchmark", "name": name, "limit": 4}
    section = {"agent": "a", "general": "b", "evaluators": [entry]}
    made, _ = schedules(AgentTuningSection.model_validate(section), None)
    (benchmark,) = select([name])
    assert made[0].evaluator.items() == benchmark.evaluator(SuiteSettings()).items()
