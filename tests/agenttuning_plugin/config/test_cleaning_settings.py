"""The section's `clean` and `model` of a source, against the data layer's."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from agenttuning_plugin.config.recipe import AgentTuningArgs
from agenttuning_plugin.config.rules import check_recipe, section_of
from dataset_builders.cleaning.steps import STEPS, Cleaning
from dataset_builders.errors import ConfigError
from dataset_builders.settings import fields_of
from dataset_builders.sources.loading import SourceSpec


def spec_of(source: dict[str, Any]) -> Any:
    section = {"agent": "agent.jsonl", "general": {"path": "chat.json", **source}}
    return check_recipe({"max_steps": 10, "agenttuning": section}).general[0]


def test_the_settings_and_their_defaults_are_the_data_layers() -> None:
    names = [field.name for field in fields(Cleaning)]
    assert list(fields_of(Cleaning)) == names
    assert set(STEPS) < set(names)


def test_what_a_recipe_says_reaches_the_source() -> None:
    assert spec_of({}).clean is None
    assert spec_of({"clean": {}}).clean == Cleaning()
    spec = spec_of(
        {"clean": {"language": None, "near_duplicates": 0.9, "join_user_turns": False},
         "model": "gpt-4"}
    )  # fmt: skip
    assert spec.clean == Cleaning(language=None, near_duplicates=0.9, join_user_turns=False)
    assert spec.model == "gpt-4"
    assert spec_of({"clean": {"near_duplicates": None}}).clean.near_duplicates is None


def test_false_switches_every_step_off() -> None:
    clean = spec_of({"clean": False}).clean
    assert clean == Cleaning.none()
    assert not any(getattr(clean, field.name) for field in fields(Cleaning))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"clean": {"lang": "en"}}, "lang"),
        ({"clean": {"near_duplicates": 0}}, "near_duplicates"),
        ({"clean": {"near_duplicates": 80}}, "near_duplicates"),
        ({"clean": True}, "clean"),
        ({"model": 4}, "model"),
    ],
)
def test_other_settings_are_refused(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"agenttuning\.general\.0\..*{message}"):
        spec_of(source)


def test_a_source_without_settings_names_no_model() -> None:
    assert SourceSpec(path="x").model == ""


def test_null_outlives_the_dump_of_axolotl() -> None:
    """Axolotl hands its recipe on as a dump without what is null."""
    section = {
        "agent": "agent.jsonl",
        "general": [
            {"path": "a", "clean": {"language": None, "near_duplicates": None}},
            {"path": "b", "clean": False},
        ],
        "gpt4_share": None,
    }
    validated = AgentTuningArgs.model_validate({"agenttuning": section})
    again = section_of(validated.model_dump(exclude_none=True))
    assert again == validated.agenttuning
    assert again.gpt4_share is None
    assert again.general[0].clean == Cleaning(language=None, near_duplicates=None)
    assert again.general[1].clean == Cleaning.none()
