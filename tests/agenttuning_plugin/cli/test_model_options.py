"""Options of a command that are the fields of a class of settings."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

from agenttuning_plugin.cli.common import prepare_commands
from agenttuning_plugin.cli.model_options import OptionGroup, with_options
from dataset_builders.errors import ConfigError
from dataset_builders.settings import field_of, settings


@settings
class Brewing:
    """Settings of each kind."""

    kind: Literal["tea", "coffee"] = Field(default="tea", description="What is brewed.")
    minutes: int = Field(default=3, ge=1, le=9, description="Minutes.")
    strong: bool = Field(default=False, description="Whether it is strong.")
    name: str | None = Field(default=None, description="Whose it is.")
    spices: tuple[str, ...] = Field(default=(), description="A spice; repeatable.")
    extra: dict[str, Any] = Field(default_factory=dict, description="As name=JSON.")
    hidden: int = Field(default=7, description="Not an option.")


GROUP = OptionGroup(
    Brewing, skip=("hidden",), names={"name": "owner"}, defaults={"minutes": None}, panel="Brewing"
)


def run(*arguments: str) -> Any:
    app = typer.Typer()

    @app.command()
    @with_options(GROUP)
    def brew(place: str = "here", **given: Any) -> None:
        values = GROUP.values(given)
        values["minutes"] = values["minutes"] or 5
        print(json.dumps([place, {**values, "kind": Brewing(**values).kind}]))

    prepare_commands(app)
    return CliRunner().invoke(app, list(arguments))


def test_defaults_are_those_of_the_fields_or_the_groups() -> None:
    place, values = json.loads(run().stdout)
    assert place == "here"
    assert values == {
        **{"kind": "tea", "minutes": 5, "strong": False, "name": None},
        **{"spices": [], "extra": {}},
    }


def test_values_reach_the_fields_by_their_names() -> None:
    given = ["--kind", "coffee", "--minutes", "9", "--strong", "--owner", "Ada", "--place", "there"]
    found = run(*given, "--spices", "a", "--spices", "b", "--extra", "sugar=2")
    place, values = json.loads(found.stdout)
    assert place == "there"
    assert values == {
        **{"kind": "coffee", "minutes": 9, "strong": True, "name": "Ada"},
        **{"spices": ["a", "b"], "extra": {"sugar": 2}},
    }


@pytest.mark.parametrize("given", [["--minutes", "0"], ["--minutes", "10"], ["--hidden", "1"]])
def test_bounds_and_options_that_are_none(given: list[str]) -> None:
    assert run(*given).exit_code == 2


def test_rules_of_the_settings_hold() -> None:
    assert isinstance(run("--kind", "milk").exception, ConfigError)
    assert isinstance(run("--extra", "sugar=two").exception, ConfigError)


def test_help_is_the_description_under_the_panel() -> None:
    shown = " ".join(run("--help").stdout.split())
    for text in ("Brewing", "What is brewed.", "[default: tea]", "Whose it is.", "--owner"):
        assert text in shown
    assert "Not an option" not in shown


def test_a_field_is_defined_once() -> None:
    @settings
    class Other:
        minutes: int = field_of(Brewing, "minutes")
        kind: str = field_of(Brewing, "kind", default="coffee")
        extra: dict[str, Any] = field_of(Brewing, "extra")

    assert Other() == Other(3, "coffee", {})
    with pytest.raises(ConfigError, match="minutes: found 10"):
        Other(minutes=10)
