"""WebShop on a small catalogue that is made up here, in the shape WebShop hands out."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.environments import EnvironmentSpec, load_environment
from dataset_builders.environments.base import OracleStep
from dataset_builders.environments.webshop.dialogue import WebShopDialogue
from dataset_builders.environments.webshop.environment import WebShopEnvironment
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy, ScriptedPolicy
from dataset_builders.rollouts.validation import validate
from tests.support.webshop_samples import KINDS, product, write_catalogue

pytestmark = [
    pytest.mark.skipif(
        find_spec("rapidfuzz") is None, reason="the extra webshop is not installed: no rapidfuzz"
    ),
    pytest.mark.usefixtures("home"),
]


@pytest.fixture
def spec(catalogue: Path) -> EnvironmentSpec:
    return load_environment("webshop", data=str(catalogue))


def begin(world: WebShopEnvironment, wanted: Callable[[Any], bool]) -> tuple[Any, str]:
    """Start a task whose goal is as wanted; returns the goal and the first page."""
    for split in ("train", "dev", "test"):
        for task_id in world.task_ids(split):
            goal = world.shop.goals[int(task_id.rsplit("-", 1)[1])]
            if wanted(goal):
                return goal, world.reset(options={"task_id": task_id})[0]
    pytest.fail("no such goal")


def in_colours(goal: Any) -> bool:
    return "red" in goal.options


def test_pages_read_as_in_webshop(world: WebShopEnvironment) -> None:
    goal, page = begin(world, in_colours)
    assert page == f"WebShop [SEP] Instruction: [SEP] {goal.instruction} [SEP] Search"
    asked = f"Instruction: [SEP] {goal.instruction} [SEP] Back to Search"
    page, *_, info = world.step(f"search[{goal.title}]")
    assert page.startswith(f"{asked} [SEP] Page 1 (Total results: 50) [SEP] Next > [SEP] B0")
    record = product(int(goal.asin[1:]))
    price = {"": "$100.0", "$12.5": "$12.5"}.get(record["pricing"], "$1003.0 to $1100.0")
    assert f"{goal.asin} [SEP] {goal.title} [SEP] {price}" in page
    actions = info["admissible_actions"]
    assert actions["clickables"][:2] == ["back to search", "next >"]
    assert not actions["has_search_bar"]
    assert len(actions["clickables"]) == 12
    page, *_, info = world.step(f"click[{goal.asin}]")
    assert page == (
        f"{asked} [SEP] < Prev [SEP] color [SEP] red [SEP] teal | grey [SEP] size [SEP] small "
        f"[SEP] large [SEP] {goal.title} [SEP] Price: {price} [SEP] Rating: N.A. [SEP] "
        "Description [SEP] Features [SEP] Reviews [SEP] Buy Now"
    )
    buttons = ["back to search", "< prev", "description", "features", "reviews", "buy now"]
    expected = [*buttons, "red", "teal | grey", "small", "large"]
    assert info["admissible_actions"]["clickables"] == expected
    told = {
        "Description": record["full_description"],
        "Features": " [SEP] ".join(record["small_description"]),
        "Reviews": "No reviews found",
    }
    for name, text in told.items():
        page, *_ = world.step(f"click[{name}]")
        assert page == f"{asked} [SEP] < Prev [SEP] {text}"
        page, *_ = world.step("click[< Prev]")
        assert page.endswith("Buy Now")


def test_the_attributes_page_is_an_option(catalogue: Path) -> None:
    world = WebShopEnvironment(catalogue, attributes=True)
    goal, _ = begin(world, in_colours)
    world.step(f"search[{goal.title}]")
    page, *_ = world.step(f"click[{goal.asin}]")
    assert page.endswith("Reviews [SEP] Attributes [SEP] Buy Now")
    page, *_ = world.step("click[attributes]")
    assert page.split(" [SEP] ")[4:7] == [*goal.attributes, "handmade"]


def test_result_pages_turn_both_ways_and_end(world: WebShopEnvironment) -> None:
    goal, first = begin(world, in_colours)
    pages = [world.step("search[Nordlys]")[0]]
    for _ in range(4):
        pages.append(world.step("click[Next >]")[0])
    assert len(set(pages)) == 5
    assert "< Prev [SEP] Next >" in pages[1]
    assert "Next >" not in pages[4]
    page, *_, info = world.step("click[Next >]")
    assert page == pages[4]
    assert not info["valid_action"]
    assert world.step("click[< prev]")[0] == pages[3]
    asin = pages[3].split(" [SEP] ")[6]
    world.step(f"click[{asin}]")
    assert world.step("click[< Prev]")[0] == pages[3]
    assert world.step("click[Back to Search]")[0] == first
    assert goal.asin


@pytest.mark.parametrize(
    "action",
    ["click[B99999]", "click[search]", "click[buy now]", "click[]", "buy", "search[]", "Click[x]"],
)
def test_an_impossible_action_changes_nothing(world: WebShopEnvironment, action: str) -> None:
    _, first = begin(world, in_colours)
    page, reward, over, _, info = world.step(action)
    assert (page, reward, over, info["valid_action"]) == (first, 0.0, False, False)


def test_a_search_works_on_any_page_and_may_find_nothing(world: WebShopEnvironment) -> None:
    goal, _ = begin(world, in_colours)
    world.step(f"search[{goal.title}]")
    world.step(f"click[{goal.asin.lower()}]")
    page, *_, info = world.step("search[the xylophones]")
    assert page.endswith("Back to Search [SEP] Page 1 (Total results: 0)")
    assert info["valid_action"]
    assert world.step('search[" OR * NEAR( \x00 \ud800 ^]')[0].endswith("(Total results: 0)")
    assert "results: 50" in world.step(f"search[{'lamp mug ' * 2000}]")[0]


def test_options_decide_and_are_forgotten_on_the_way_back(world: WebShopEnvironment) -> None:
    goal, _ = begin(world, in_colours)

    def buy(*choices: str) -> float:
        begin(world, lambda each: each == goal)
        world.step(f"search[{goal.title}]")
        world.step(f"click[{goal.asin}]")
        for choice in choices:
            assert world.step(f"click[{choice}]")[4]["valid_action"]
        _, reward, over, _, info = world.step("click[Buy Now]")
        assert over
        assert info["exit_reason"] == "bought"
        assert info["score"] == reward
        return reward

    colour, size = goal.options
    other = "small" if size == "large" else "large"
    assert buy(colour, size) == 1.0
    assert buy(colour.upper(), other, size) == 1.0
    assert buy() == pytest.approx(3 / 5)
    assert buy(colour, other) == pytest.approx(4 / 5)
    assert buy(colour, size, "< Prev", goal.asin) == pytest.approx(3 / 5)


def test_an_option_that_two_groups_share_goes_to_the_later_one(tmp_path: Path) -> None:
    records = [product(number) for number in range(5)]
    for record in records:
        both = [{"value": "plain"}]
        record["customization_options"] = {"Color": both, "Trim": both, "Gone": None}
    world = WebShopEnvironment(write_catalogue(tmp_path, records))
    goal, _ = begin(world, lambda goal: True)
    world.step(f"search[{goal.title}]")
    world.step(f"click[{goal.asin}]")
    world.step("click[plain]")
    assert world.step("click[buy now]")[1] == pytest.approx(4 / 5)


def test_the_oracle_buys_every_product_and_idling_nothing(spec: EnvironmentSpec) -> None:
    tasks = [*spec.task_ids("train")[:20], *spec.task_ids("dev")[:5], *spec.task_ids("test")[:5]]
    played = play(spec, tasks, OraclePolicy())
    assert [trajectory.reward for trajectory in played] == [1.0] * 30
    assert all(t.valid_rounds == t.num_rounds for t in played)
    assert validate(spec, num_tasks=3).ok


def test_turning_pages_belongs_to_the_oracle(tmp_path: Path) -> None:
    records = [product(5 * number) for number in range(40)]
    for record in records:  # Alike in all that is searched: ties fall in the file's order.
        record |= {"name": "Plain Lamp", "full_description": "", "pricing": "$5"}
        record |= {"small_description": "", "customization_options": ""}
    spec = load_environment("webshop", data=str(write_catalogue(tmp_path, records)))
    played = play(spec, spec.task_ids("test"), OraclePolicy())
    assert [trajectory.reward for trajectory in played] == [1.0] * 40
    assert {trajectory.num_rounds for trajectory in played} == {3, 4, 5, 6}


@pytest.mark.parametrize(
    ("turn", "action"),
    [
        ("Thought:\nI think ...\n\nAction:\nclick[Buy Now]", "click[Buy Now]"),
        ("Thought: x\nAction: \n search[red mug]", "search[red mug]"),
        ("action:\nsearch[a [b] c]", "search[a [b]"),
        ("Action:\nclick[a]\nAction:\nclick[b]", "click[a]"),
        ("Action: click[a]", None),
        ("Action:\n\nclick[a]", None),
        ("Action:\nclick[]", None),
        ("Action:\nclick[a\nb]", None),
        ("Action:\nbuy[a]", None),
        ("click[a]", None),
    ],
)
def test_turns_are_read_by_the_benchmarks_rule(turn: str, action: str | None) -> None:
    assert WebShopDialogue.read(None, turn) == action  # type: ignore[arg-type]


@given(
    st.text(max_size=40).filter(lambda text: "ction:" not in text),
    st.sampled_from(["search", "click"]),
    st.text(st.characters(exclude_characters="]\n"), min_size=1, max_size=30),
)
def test_what_is_written_is_read_back(thought: str, kind: str, value: str) -> None:
    move = OracleStep(thought, f"{kind}[{value}]")
    turn = WebShopDialogue.write(None, move)  # type: ignore[arg-type]
    assert WebShopDialogue.read(None, turn) == move.action  # type: ignore[arg-type]


def test_ten_turns_without_a_purchase_earn_nothing(spec: EnvironmentSpec) -> None:
    policy = ScriptedPolicy(["Action:\nclick[nothing]"])
    (played,) = play(spec, spec.task_ids("test")[:1], policy)
    assert (played.reward, played.exit_reason, played.num_rounds) == (0.0, "round_limit", 10)
    assert played.valid_rounds == 0
    (played,) = play(spec, spec.task_ids("test")[:1], ScriptedPolicy(["I give up."]))
    assert (played.reward, played.exit_reason, played.num_rounds) == (0.0, "bad_format", 1)


def test_our_wording_shows_what_can_be_done(spec: EnvironmentSpec) -> None:
    dialogue = spec.make()
    first, info = dialogue.reset(options={"split": "test", "index": 0})
    page = f"WebShop [SEP] Instruction: [SEP] {info['instruction']} [SEP] Search"
    actions = "{'has_search_bar': True, 'clickables': ['search']}"
    assert first == f"Observation:\n{page}\n\nAvailable Actions:\n{actions}"
    later = dialogue.step("Action:\nsearch[{actions}{observation} lamp]")[0]
    assert later.count("Available Actions:\n{'has_search_bar': False") == 1


def test_a_demonstration_is_an_untrained_purchase(catalogue: Path) -> None:
    spec = load_environment("webshop", data=str(catalogue), demonstration=True)
    plain = load_environment("webshop", data=str(catalogue))
    (shown,) = play(spec, spec.task_ids("test")[:1], OraclePolicy())
    (bare,) = play(plain, plain.task_ids("test")[:1], OraclePolicy())
    assert len(shown.messages) == len(bare.messages) + 8
    assert shown.messages[10:] == bare.messages[2:]
    assert not any(message.trained for message in shown.messages[:10])
    assert shown.messages[9].content.endswith("click[Buy Now]")
    assert shown.prompt != bare.prompt


@settings(max_examples=20)
@given(st.lists(st.integers(0, 1000), max_size=25))
def test_whatever_is_listed_can_be_clicked(catalogue: Path, steps: list[int]) -> None:
    world = WebShopEnvironment(catalogue)
    page, info = world.reset(options={"split": "test", "index": 3})
    for step in steps:
        actions = info["admissible_actions"]
        if actions["has_search_bar"]:
            action = f"search[{KINDS[step % len(KINDS)]}]"
        else:
            listed = actions["clickables"]
            action = f"click[{listed[step % len(listed)]}]"
        page, reward, over, _, info = world.step(action)
        assert info["valid_action"]
        assert 0.0 <= reward <= 1.0
        if over:
            assert action == "click[buy now]"
            return
        assert info["instruction"] in page
