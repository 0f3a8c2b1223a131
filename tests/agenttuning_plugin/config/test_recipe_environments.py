"""Environments of one's own in a recipe."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from agenttuning_plugin import AgentTuningConfig
from agenttuning_plugin.config.references import resolve_references
from agenttuning_plugin.config.shipped import read_recipe
from dataset_builders.errors import ConfigError
from evaluators.tasks.registry import select
from tests.support.own_environments import write_guess

TASK = {"type": "agent_task", "environment": "./guess.py:Guess"}


def recipe(folder: Path, evaluator: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(f"agenttuning:\n  agent: a\n  general: b\n  evaluators:\n    - {evaluator}\n")
    return path


def test_a_file_is_relative_to_the_recipes_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = write_guess(tmp_path)
    path = recipe(tmp_path, '{type: agent_task, environment: "./guess.py:Guess", split: dev}')
    (config,) = AgentTuningConfig.from_yaml(path).evaluators
    assert config.environment == place  # type: ignore[union-attr]
    assert config.key == "guess_dev"
    path = recipe(tmp_path, '{type: benchmark, name: "guess.py:Guess", options: {top: 9}}')
    (config,) = AgentTuningConfig.from_yaml(path).evaluators
    assert (config.name, config.key) == (place, "guess")  # type: ignore[union-attr]
    # A recipe of a sweep is in a temporary folder; the working folder has the file then.
    (tmp_path / "sweep").mkdir()
    monkeypatch.chdir(tmp_path)
    found = read_recipe(
        recipe(tmp_path / "sweep", '{type: replay, environment: "./guess.py:Guess"}')
    )
    assert found["agenttuning"]["evaluators"][0]["environment"] == place


def test_a_selector_of_turns_is_relative_to_the_recipes_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "pick.py").write_text("def first(conversation):\n    return [1]\n")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        'agenttuning: {agent: {path: a, train_on: "./pick.py:first"}, '
        'general: [{path: b, train_on: "pick.py:first"}, {path: c, train_on: last}]}'
    )
    section = read_recipe(path)["agenttuning"]
    place = f"{tmp_path}/pick.py:first"
    assert section["agent"]["train_on"] == section["general"][0]["train_on"] == place
    assert section["general"][1]["train_on"] == "last"


@pytest.mark.parametrize(
    ("evaluator", "message"),
    [
        ('{type: agent_task, environment: "./guess.py:Ges"}', "found no 'Ges', did you mean Guess"),
        ('{type: agent_task, environment: "./gues.py:Guess"}', "gues.py: no such file"),
        ('{type: replay, environment: "no.module:X"}', "no module named 'no'"),
        ('{type: benchmark, name: "./gues.py:Guess"}', "gues.py: no such file"),
        ('{type: benchmark, name: "guess"}', "expected one of .*module:Class"),
        (
            '{type: benchmark, name: "./guess.py:Guess", options: {tops: 9}}',
            "option 'tops' is unknown; known: top, split",
        ),
        (
            '{type: agent_task, environment: "./guess.py:Guess", options: {tops: 9}}',
            "option 'tops' is unknown; known: top",
        ),
    ],
)
def test_a_reference_that_is_wrong_is_one_line(
    tmp_path: Path, evaluator: str, message: str
) -> None:
    write_guess(tmp_path)
    with pytest.raises(ConfigError, match=message) as caught:
        AgentTuningConfig.from_yaml(recipe(tmp_path, evaluator))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "cfg",
    [{}, *({"agenttuning": each} for each in (3, {"evaluators": 3}, {"evaluators": [3]}))],
)
def test_a_recipe_of_another_form_is_left_to_its_checks(tmp_path: Path, cfg: Any) -> None:
    before = deepcopy(cfg)
    resolve_references(cfg, tmp_path)
    assert cfg == before


def test_suites_of_an_endpoint_are_relative_to_the_recipes_folder(tmp_path: Path) -> None:
    place = write_guess(tmp_path)
    cfg = {"agenttuning": {"endpoint": {"suites": [f"./{Path(place).name}", "database", 3]}}}
    resolve_references(cfg, tmp_path)
    assert cfg["agenttuning"]["endpoint"]["suites"] == [place, "database", 3]


def test_suites_take_references_beside_the_table(tmp_path: Path) -> None:
    place = write_guess(tmp_path)
    chosen = select([place, "database", "lm_eval/arc_easy", place])
    assert [b.name for b in chosen] == ["database", place, "lm_eval/arc_easy"]
    assert (chosen[1].key, chosen[1].suite) == ("guess", "own")
    with pytest.raises(ConfigError, match="lead to one name, expected one for each"):
        select([place, write_guess(tmp_path, name="other")])


def test_the_environment_of_recover_is_relative_to_the_recipes_folder(tmp_path: Path) -> None:
    place = write_guess(tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "agenttuning: {general: b, agent: [{path: a, recover: "
        '{environment: "./guess.py:Guess"}}, {recover: {collection: c}}]}'
    )
    first, second = AgentTuningConfig.from_yaml(path).agent
    assert first.recover is not None
    assert (first.recover.collection, first.recover.environment) == ("a", place)
    assert second.recover is not None
    assert second.recover.environment is None
