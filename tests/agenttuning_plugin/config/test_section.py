"""The `agenttuning:` section and the rules around it: closed, bounded, described."""

from __future__ import annotations

from typing import Any

import pytest

from agenttuning_plugin.config import recipe as args
from agenttuning_plugin.config.rules import check_recipe
from dataset_builders.errors import ConfigError
from dataset_builders.settings import fields_of

MINIMAL: dict[str, Any] = {
    "max_steps": 10,
    "agenttuning": {"agent": "agent.jsonl", "general": "chat.json"},
}

MODELS = [model for model in vars(args).values() if fields_of(model)]


def recipe(section: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    return {**MINIMAL, **keys, "agenttuning": {**MINIMAL["agenttuning"], **(section or {})}}


def test_a_path_alone_is_a_source() -> None:
    section = check_recipe(recipe())
    assert [source.path for source in section.agent] == ["agent.jsonl"]
    assert section.eta == 0.2


def test_sources_may_be_listed() -> None:
    section = check_recipe(recipe({"agent": ["a.jsonl", {"path": "b.jsonl", "limit": 3}]}))
    assert [(source.path, source.limit) for source in section.agent] == [
        ("a.jsonl", None),
        ("b.jsonl", 3),
    ]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_is_described(model: type) -> None:
    for name, field in fields_of(model).items():
        assert field.description or name == "type", f"{model.__name__}.{name}"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"eta": 1.5}, "agenttuning.eta: found 1.5, input should be less than or equal to 1"),
        ({"eta": -0.1}, "agenttuning.eta: found -0.1"),
        ({"eta": float("nan")}, "agenttuning.eta"),
        ({"eta": "much"}, "agenttuning.eta: found 'much'"),
        ({"etta": 0.2}, "agenttuning.etta: unknown key"),
        ({"agent": {"path": "a", "splitz": ["db"]}}, "agenttuning.agent.0.splitz: unknown key"),
        ({"agent": {"format": "sharegpt"}}, "agenttuning.agent.0.path: Field required"),
        ({"agent": {"path": ""}}, "agenttuning.agent.0.path"),
        ({"agent": {"path": "a", "format": "csv"}}, "agenttuning.agent.0.format: found 'csv'"),
        ({"general": {"path": "a", "limit": 0}}, "agenttuning.general.0.limit: found 0"),
        ({"agent": []}, "eta is 0.2, but agent names no source"),
        ({"general": []}, "eta is 0.2, but general names no source"),
        ({"eta": 1, "agent": []}, "eta is 1.0, but agent names no source"),
        ({"eta": 0, "general": []}, "eta is 0.0, but general names no source"),
        ({"holdout": -1}, "agenttuning.holdout: found -1"),
        ({"num_examples": 0}, "agenttuning.num_examples: found 0"),
        ({"evaluators": [{"type": "magic"}]}, "agenttuning.evaluators.0"),
        ({"evaluators": [{"type": "agent_task", "every": 0}]}, "every: found 0"),
        ({"evaluators": [{"type": "agent_task", "num_task": 3}]}, "num_task: unknown key"),
        ({"evaluators": [{"type": "benchmark", "name": "held-in"}]}, "expected one of alfworld, "),
        (
            {"evaluators": [{"type": "agent_task"}, {"type": "benchmark", "name": "database"}]},
            "evaluators: found 'database' twice",
        ),
        (
            {"evaluators": [{"type": "agent_task", "options": {"bakend": "mariadb"}}]},
            "known: data, tasks, backend, url, dialogue; did you mean backend?",
        ),
        (
            {"evaluators": [{"type": "agent_task", "data": "a", "options": {"data": "b"}}]},
            "options.data: found with data, expected one of the two",
        ),
        (
            {"evaluators": [{"type": "benchmark", "name": "mmlu", "options": {"shtos": 3}}]},
            "mmlu: option 'shtos' is unknown; known: data, shots, hub; did you mean shots",
        ),
        (
            {"evaluators": [{"type": "benchmark", "name": "os", "options": {"splt": "dev"}}]},
            "known: data, silence_seconds, dialogue, split; did you mean split?",
        ),
        (
            {"evaluators": [{"type": "benchmark", "name": "rewoo", "options": {"data": 3}}]},
            "rewoo: data: found 3, input should be a valid string",
        ),
        (
            {"evaluators": [{"type": "replay", "environment": "databse"}]},
            "environment 'databse' is unknown; known: alfworld, ",
        ),
        (
            {"endpoint": {"base_url": "http://x/v1", "options": {"database": {"bakend": "x"}}}},
            "database: option 'bakend' is unknown",
        ),
        (
            {"endpoint": {"base_url": "http://x/v1", "options": {"mmlu": {"shots": 1}}}},
            "options: found 'mmlu', expected a task that is measured: alfworld, ",
        ),
        (
            {"evaluation": {"every_dear": 50}},
            "agenttuning.evaluation.every_dear: unknown key, renamed to every_generative",
        ),
        ({"evaluation": {"max_time_share": 1.0}}, "max_time_share: found 1.0"),
        ({"evaluation": {"best": {}}}, "best.floor.evaluator: found 'general', expected one of"),
        (
            {
                "evaluators": [{"type": "general_loss", "at_start": False}],
                "evaluation": {"stop_if_general_drops": {}},
            },
            "evaluation.stop_if_general_drops.evaluator: found 'general' with at_start false",
        ),
        (
            {"evaluators": [{"type": "general_loss"}], "holdout": 0},
            "general_loss needs a general source and a holdout",
        ),
    ],
)
def test_a_bad_section_is_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_recipe(recipe(section))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "section", [{"eta": 1, "general": []}, {"eta": 0, "agent": []}, {"eta": 1}, {"eta": 0}]
)
def test_a_source_without_a_share_may_be_missing(section: dict[str, Any]) -> None:
    assert check_recipe(recipe(section)).eta in (0, 1)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"datasets": [{"path": "x"}]}, "datasets: found"),
        ({"pretraining_dataset": "x"}, "pretraining_dataset: found 'x'"),
        ({"test_datasets": [{"path": "x"}]}, "use agenttuning.holdout"),
        ({"val_set_size": 0.1}, "val_set_size: found 0.1"),
        ({"rl": "dpo"}, "rl: found 'dpo'"),
        ({"streaming": True}, "streaming: found True"),
        ({"group_by_length": True}, "it would reorder the mix"),
        ({"train_on_inputs": True}, "the model's own turns only"),
        ({"curriculum_sampling": False}, "curriculum_sampling: found false"),
        ({"max_steps": None}, "max_steps: missing"),
        ({"max_steps": None, "sample_packing": True}, "max_steps: missing"),
        ({"base_model": "./no-such-model"}, "base_model: found no folder no-such-model"),
        (
            {"base_model": "~/.cache/agenttuning/no-such-model"},
            "no-such-model: run `agenttuning demo --prepare`",
        ),
    ],
)
def test_keys_that_contradict_the_plugin_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_recipe(recipe(**keys))
    assert message in str(caught.value)


SHARDED: list[dict[str, Any]] = [
    {"fsdp_config": {"reshard_after_forward": True}},
    {"deepspeed": {"zero_optimization": {"stage": 3}}},
]


@pytest.mark.parametrize("keys", SHARDED)
def test_evaluators_run_while_the_model_is_sharded(keys: dict[str, Any]) -> None:
    assert check_recipe(recipe({"evaluators": [{"type": "agent_task"}]}, **keys)).evaluators


@pytest.mark.parametrize("key", ["tensor_parallel_size", "context_parallel_size"])
def test_evaluators_of_processes_that_share_an_input_are_refused(key: str) -> None:
    keys = {key: 2}
    with pytest.raises(ConfigError, match=f"evaluators: cannot run with {key}: 2"):
        check_recipe(recipe({"evaluators": [{"type": "agent_task"}]}, **keys))
    assert check_recipe(recipe(**keys)).evaluators == []
    assert check_recipe(recipe({"evaluators": [{"type": "agent_task"}]}, **{key: 1})).evaluators


def test_two_chat_templates_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected one of the two"):
        check_recipe(recipe({"chat_template": "llama-2"}, chat_template="chatml"))


def test_a_missing_section_is_refused() -> None:
    with pytest.raises(ConfigError, match="the section is missing"):
        check_recipe({"max_steps": 3})


def test_a_number_of_examples_stands_in_for_steps() -> None:
    assert check_recipe(recipe({"num_examples": 50}, max_steps=None)).num_examples == 50
