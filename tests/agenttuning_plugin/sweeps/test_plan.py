"""Which arms a sweep has, and what is refused before any of them runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agenttuning_plugin.config.shipped import read_recipe
from agenttuning_plugin.sweeps.definition import read_definition
from agenttuning_plugin.sweeps.plan import Arm, plan_arms
from agenttuning_plugin.sweeps.state import (
    REPLACED,
    differences,
    digest_of,
    locked,
    read_sweep,
    write_marker,
    write_plan,
)
from agenttuning_plugin.sweeps.values import parse_setting
from dataset_builders.errors import ConfigError

Plan = Callable[..., list[Arm]]


@pytest.fixture
def plan(write_recipe: Callable[..., Path], tmp_path: Path) -> Plan:
    """Plans a sweep of a recipe with the given block, and options."""

    def make(
        block: dict[str, Any] | None = None,
        settings: Sequence[str] = (),
        seeds: str | None = None,
        **keys: Any,
    ) -> list[Arm]:
        recipe = read_recipe(write_recipe(tmp_path, sweep=block, **keys))
        return plan_arms(recipe, read_definition(recipe, settings, seeds), tmp_path / "out")

    return make


def test_arms_are_the_product_of_values_and_seeds_seed_after_seed(plan: Plan) -> None:
    arms = plan(settings=["agenttuning.eta=0,0.5", "learning_rate=0.1,0.2"], seeds="2")
    assert [arm.name for arm in arms][:4] == [
        "eta-0_learning_rate-0.1_seed-7",
        "eta-0_learning_rate-0.2_seed-7",
        "eta-0.5_learning_rate-0.1_seed-7",
        "eta-0.5_learning_rate-0.2_seed-7",
    ]
    assert [arm.seed for arm in arms] == [7] * 4 + [8] * 4
    last = arms[-1]
    assert last.values == {"agenttuning.eta": "0.5", "learning_rate": "0.2"}
    assert last.recipe["agenttuning"]["eta"] == 0.5
    assert last.recipe["learning_rate"] == 0.2
    assert last.recipe["seed"] == 8
    assert last.recipe["output_dir"] == str(last.folder)
    assert last.recipe["agenttuning"]["holdout"] == 4  # The rest is the recipe's.
    assert "sweep" not in last.recipe
    assert len({arm.recipe["dataset_prepared_path"] for arm in arms}) == 1


def test_values_that_are_mappings_have_names(plan: Plan, tmp_path: Path) -> None:
    text = "agenttuning.general=chat:{path: a.jsonl, limit: 3},own:[{path: b.jsonl}, c.jsonl]"
    key, values = parse_setting(text)
    assert (key, [value.name for value in values]) == ("agenttuning.general", ["chat", "own"])
    arms = plan(settings=[text])
    assert [arm.name for arm in arms] == ["general-chat_seed-7", "general-own_seed-7"]
    assert arms[1].recipe["agenttuning"]["general"] == [{"path": "b.jsonl"}, "c.jsonl"]
    block = {"set": {"agenttuning.general": {"chat": {"path": "a.jsonl", "limit": 3}}}}
    assert plan(block)[0].recipe == arms[0].recipe


def test_combinations_can_be_left_out_and_arms_added(plan: Plan) -> None:
    block = {
        "set": {
            "agenttuning.eta": [0.5, 1],
            "agenttuning.general": {"a": {"path": "a"}, "b": {"path": "b"}},
        },
        "skip": [{"agenttuning.eta": 1, "agenttuning.general": ["b"]}],
        "arms": {"slow": {"learning_rate": 0.1, "agenttuning.holdout": 2}},
        "seeds": [3],
    }
    arms = plan(block)
    assert [arm.group for arm in arms] == [
        "eta-0.5_general-a",
        "eta-0.5_general-b",
        "eta-1_general-a",
        "slow",
    ]
    assert arms[-1].recipe["learning_rate"] == 0.1
    assert arms[-1].recipe["agenttuning"]["holdout"] == 2
    assert plan(block, ["agenttuning.eta=0.25"], "3,")[0].group == "eta-0.25_general-a"


@pytest.mark.parametrize(
    ("block", "settings", "message"),
    [
        (None, [], "nothing is varied"),
        (None, ["eta=0,1"], r"eta: unknown key, did you mean agenttuning\.eta"),
        (None, ["agenttuning.eta=0,2"], r"eta-2_seed-7: agenttuning\.eta: found 2"),
        (None, ["agenttuning.etta=0"], r"etta-0_seed-7: agenttuning\.etta: unknown key"),
        (None, ["agenttuning.eta=0,0"], "found 0 twice"),
        (None, ["seed=1,2"], "seed: cannot be swept"),
        (None, ["agenttuning.general={path: a}"], "expected a name for it"),
        (None, ["agenttuning.eta"], "expected KEY=VALUE"),
        (None, ["agenttuning.eta=0", "agenttuning.eta=1"], "found agenttuning.eta twice"),
        (None, ["agenttuning.evaluators.4.every=1"], "expected a number below 1"),
        ({"sets": {}}, [], r"sweep\.sets: unknown key, did you mean set"),
        ({"set": {"agenttuning.eta": [0]}, "skip": [{"a": 1}]}, [], "a is not swept"),
        (
            {"set": {"agenttuning.eta": [0]}, "skip": [{"agenttuning.eta": 3}]},
            [],
            "found 3, expected of 0",
        ),
        ({"arms": {"a/b": {}}}, [], "found the name 'a/b'"),
    ],
)
def test_mistakes_are_named_before_anything_runs(
    plan: Plan, block: Any, settings: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(block, settings)


def test_a_finished_arm_keeps_its_recipe_and_an_open_one_is_begun_anew(
    plan: Plan, tmp_path: Path
) -> None:
    out, recipe = tmp_path / "out", tmp_path / "recipe.yaml"
    first = plan(settings=["agenttuning.eta=0,0.5"])
    write_plan(out, recipe, first, {})
    (first[0].folder / "train.log").write_text("begun")
    write_marker(first[1].folder, 1.0)
    changed = plan(settings=["agenttuning.eta=0"], max_steps=4)
    with locked(out, changed[0].name), pytest.raises(ConfigError, match="another process trains"):
        write_plan(out, recipe, changed, {})
    write_plan(out, recipe, changed, {})
    assert (out / REPLACED / f"{changed[0].name}.1/train.log").read_text() == "begun"
    assert not (changed[0].folder / "train.log").exists()
    with pytest.raises(ConfigError, match="max_steps was 3, is 4"):
        write_plan(out, recipe, plan(settings=["agenttuning.eta=0.5"], max_steps=4), {})


def test_a_sweep_can_be_moved(plan: Plan) -> None:
    recipe = plan(settings=["agenttuning.eta=0"])[0].recipe
    moved = {**recipe, "output_dir": "elsewhere", "dataset_prepared_path": "there"}
    assert digest_of(recipe) == digest_of(moved)
    assert not differences(recipe, moved)
    before = {**recipe, "agenttuning": {**recipe["agenttuning"]}}
    del before["agenttuning"]["evaluation"]  # It holds only where the base is shared.
    assert not differences(before, recipe)
    other = {**recipe, "agenttuning": {**recipe["agenttuning"], "eta": 1}}
    assert digest_of(recipe) != digest_of(other)
    assert differences(recipe, other) == ["agenttuning.eta was 0, is 1"]


def test_arms_have_their_own_names_in_trackers_and_share_no_upload(plan: Plan) -> None:
    arms = plan(seeds="2", wandb_project="study", wandb_name="all")
    assert [arm.recipe["wandb_name"] for arm in arms] == ["seed-7", "seed-8"]
    with pytest.raises(ConfigError, match="seed-7: hub_model_id: found 'a/b', expected nothing"):
        plan(seeds="2", hub_model_id="a/b")


def test_arms_share_the_base_unless_the_recipe_says_where(plan: Plan, tmp_path: Path) -> None:
    shared = [arm.recipe["agenttuning"]["evaluation"]["shared_base"] for arm in plan(seeds="2")]
    assert shared == [str(tmp_path / "out/base")] * 2
    evaluation = {"every": 1, "shared_base": "mine"}
    section = {"evaluators": [{"type": "general_loss"}], "evaluation": evaluation}
    assert plan(seeds="2", section=section)[0].recipe["agenttuning"]["evaluation"] == evaluation


def test_the_listing_keeps_arms_of_earlier_commands_and_groups_seeds(
    plan: Plan, tmp_path: Path
) -> None:
    out, recipe = tmp_path / "out", tmp_path / "recipe.yaml"
    write_plan(out, recipe, plan(settings=["agenttuning.eta=0"]), {"agenttuning.eta": ["0"]})
    write_plan(out, recipe, plan(seeds="2"), {})
    listed = [(arm["name"], arm["group"], arm["seed"]) for arm in read_sweep(out)["arms"]]
    assert listed == [
        ("seed-7", "recipe", 7),
        ("seed-8", "recipe", 8),
        ("eta-0_seed-7", "eta-0", 7),
    ]
