"""Settings classes: frozen, closed, and wrong in one line."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError

from dataset_builders.environments import HELD_IN, load_environment
from dataset_builders.errors import ConfigError
from dataset_builders.settings import options, problems_of, read_settings, settings


@settings
class Part:
    name: str = Field(default="a", min_length=1, description="Name.")
    share: float = Field(default=0.5, ge=0, le=1, description="Share.")


@settings
class Whole:
    path: str = Field(description="Path.")
    parts: tuple[Part, ...] = Field(default=(), description="Parts.")


@options
class Options:
    shots: int = Field(default=5, ge=0, description="Shots.")


class Section(BaseModel):
    whole: Whole
    part: Part = Field(default_factory=Part)


def test_it_is_a_frozen_value() -> None:
    part = Part("b", share=1)
    assert replace(part, name="c") == Part("c", 1.0)
    assert pickle.loads(pickle.dumps(part)) == part
    assert len({part, Part("b", 1.0)}) == 1
    with pytest.raises(FrozenInstanceError):
        part.name = "c"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Part(share=2), "share: found 2, input should be less than or equal to 1"),
        (lambda: Part("a", 2), "share: found 2, input should be less than or equal to 1"),
        (lambda: Part(shar=1), "shar: unknown key, did you mean share?"),  # type: ignore[call-arg]
        (lambda: Part(x=1), "x: unknown key, expected name, share"),  # type: ignore[call-arg]
        (lambda: replace(Part(), name=""), "name: found '', string should have at least 1"),
        (lambda: Whole(), "path: Field required"),  # type: ignore[call-arg]
        (lambda: Whole("x", parts=({"nam": 1},)), "parts.0.nam: unknown key, did you mean name?"),  # type: ignore[arg-type]
        (lambda: read_settings(Options, {"shtos": 1}, "mmlu"), "mmlu: option 'shtos' is unknown; "),
        (lambda: read_settings(Options, {"shots": "3"}, "mmlu"), "mmlu: shots: found '3', input"),
        (lambda: read_settings(Options, {"shots": True}, "mmlu"), "mmlu: shots: found True, "),
    ],
)
def test_what_is_wrong_is_one_line(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError) as told:
        make()
    assert str(told.value).startswith(message)
    assert "\n" not in str(told.value)


def test_within_a_model_the_place_is_named() -> None:
    with pytest.raises(ValidationError) as told:
        Section.model_validate({"whole": {"path": "x", "parts": [{"share": 3}]}, "part": {"y": 1}})
    assert problems_of(Section, told.value, "top") == (
        "top.whole.parts.0.share: found 3, input should be less than or equal to 1; "
        "top.part.y: unknown key, expected name, share"
    )
    section = Section.model_validate({"whole": {"path": "x", "parts": [{"share": 1}]}})
    assert section.whole == Whole("x", (Part(share=1),))


@pytest.mark.parametrize("name", HELD_IN)
def test_options_of_an_environment_are_checked_before_it_is_made(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}: option 'dta' is .*did you mean data"):
        load_environment(name, dta=1).check_options()
    with pytest.raises(ConfigError, match=rf"^{name}: data"):
        load_environment(name, data=7).check_options()
    load_environment(name, data="somewhere").check_options()
