"""WebShop on its real thousand products, and against AgentInstruct's real rows."""

from __future__ import annotations

import json
import lzma
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.environments import EnvironmentSpec, load_environment
from dataset_builders.environments.webshop.catalogue import Product
from dataset_builders.environments.webshop.dialogue import WebShopDialogue
from dataset_builders.environments.webshop.goals import make_goals, product_price
from dataset_builders.environments.webshop.oracle import _choices
from dataset_builders.environments.webshop.pages import SEPARATOR, results_page
from dataset_builders.environments.webshop.reward import reward
from dataset_builders.environments.webshop.shop import Shop, find_files, load_shop
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from dataset_builders.rollouts.validation import validate


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "data/webshop"


@pytest.fixture(scope="module")
def shop(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("AGENTTUNING_DATA", raising=False)
        yield load_shop(find_files("webshop", folder, ()))


@pytest.fixture
def spec(shop: Shop, folder: Path) -> EnvironmentSpec:
    assert shop.goals
    return load_environment("webshop", data=str(folder))


@pytest.fixture(scope="module")
def rows(shared: Path) -> list[list[dict[str, Any]]]:
    lines = (shared / "data/agentinstruct/webshop.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["conversations"] for line in lines]


def test_documents_are_those_that_webshop_indexes(shop: Shop, folder: Path) -> None:
    with lzma.open(folder / "products_1k.jsonl.xz", "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    assert len(records) == 1000
    for record in records:
        product = shop.index.product(record["id"])
        assert product.document == record["contents"]
        assert product.price_tag == record["product"]["Price"]
        assert dict(product.options) == {
            k: tuple(v) for k, v in record["product"]["options"].items()
        }
        assert list(product.attributes) == record["product"]["Attributes"]


def test_goals_and_splits(shop: Shop) -> None:
    assert len(shop.goals) == 6910
    assert {split: len(indices) for split, indices in shop.splits.items()} == {
        "train": 1055,
        "dev": 80,
        "test": 200,
    }
    evaluated = [shop.goals[i] for split in ("dev", "test") for i in shop.splits[split]]
    train = [shop.goals[i] for i in shop.splits["train"]]
    assert min(shop.splits["train"]) >= 1500
    assert not {goal.instruction for goal in evaluated} & {goal.instruction for goal in train}
    assert not {goal.asin for goal in evaluated} & {goal.asin for goal in train}


def test_the_oracle_buys_what_300_goals_ask_for(spec: EnvironmentSpec) -> None:
    tasks = spec.task_ids("train")
    sample = [tasks[number * len(tasks) // 300] for number in range(300)]
    played = play(spec, sample, OraclePolicy())
    solved = sum(trajectory.reward == 1.0 for trajectory in played)
    assert solved >= 0.95 * 300
    assert max(trajectory.num_rounds for trajectory in played) <= 10


def test_validation_passes_on_every_split(spec: EnvironmentSpec) -> None:
    for split in ("train", "dev", "test"):
        validation = validate(spec, split=split)
        assert validation.ok, validation


def test_every_goal_can_earn_1_and_another_product_less(shop: Shop) -> None:
    products = {product.asin: product for product in shop.index.wished()}
    others = list(products.values())
    for number, goal in enumerate(shop.goals[::7]):
        product, other = products[goal.asin], others[number % len(others)]
        chosen = _choices(product, goal)
        assert reward(product, product_price(product), chosen, goal) == 1.0
        assert 0.0 <= reward(other, product_price(other), {}, goal) <= 1.0
    lamp = next(goal for goal in shop.goals if goal.options)
    assert reward(products[lamp.asin], product_price(products[lamp.asin]), {}, lamp) < 1.0


def test_peoples_goals_of_the_small_set_can_be_met(shop: Shop) -> None:
    goals = make_goals(shop.index.wished(), human=True)
    assert len(goals) == 13
    for goal in goals:
        product = shop.index.product(goal.asin)
        score = reward(product, product_price(product), _choices(product, goal), goal)
        assert score == 1.0


def test_a_search_is_quick(shop: Shop) -> None:
    queries = [goal.instruction for goal in shop.goals[:200]]
    started = time.process_time()
    found = [shop.index.search(query) for query in queries]
    assert (time.process_time() - started) / len(queries) < 0.05
    hits = sum(goal.asin in hits for goal, hits in zip(shop.goals[:200], found, strict=True))
    assert hits >= 180


def test_result_pages_read_as_in_the_rows(rows: list[list[dict[str, Any]]]) -> None:
    seen = 0
    for row in rows:
        for turn in row:
            pieces = turn["value"].split(SEPARATOR)
            if turn["from"] != "human" or len(pieces) < 8 or "Page 1" not in pieces[3]:
                continue
            listed = pieces[5:]
            found = [listing(*listed[place : place + 3]) for place in range(0, len(listed) - 2, 3)]
            assert results_page(pieces[1], found, 1, 50).text == turn["value"]
            seen += 1
    assert seen >= 14


def listing(asin: str, title: str, price_tag: str) -> Product:
    return Product(asin, title, "", (), "", "", "", (1.0,), price_tag, "N.A.", {}, ())


def test_every_trained_turn_of_the_rows_has_an_action(rows: list[list[dict[str, Any]]]) -> None:
    turns = [t["value"] for row in rows for t in row if t["from"] == "gpt" and t["loss"]]
    assert len(turns) >= 40
    for turn in turns:
        assert WebShopDialogue.read(None, turn) is not None, turn  # type: ignore[arg-type]


@pytest.mark.parametrize("demonstration", [False, True])
def test_the_published_wording_is_played_as_in_the_rows(
    spec: EnvironmentSpec, shared: Path, rows: list[list[dict[str, Any]]], demonstration: bool
) -> None:
    published = load_environment(
        "webshop",
        prompt="published",
        agentinstruct=str(shared / "data/agentinstruct/webshop.jsonl"),
        demonstration=demonstration,
        **spec.options,
    )
    (played,) = play(published, published.task_ids("train")[:1], OraclePolicy())
    assert played.reward == 1.0
    assert [m.content for m in played.messages[:2]] == [t["value"] for t in rows[0][:2]]
    assert played.messages[2].content.startswith("WebShop [SEP] Instruction: [SEP] ")
    assert played.messages[2].content.endswith(" [SEP] Search")
    assert played.messages[4].content.startswith("Instruction: [SEP] ")
    assert played.prompt.startswith("published:")


def test_wording_around_pages_is_found_where_rows_have_it(tmp_path: Path) -> None:
    page = "Instruction: [SEP] a mug [SEP] Back to Search [SEP] Page 1 (Total results: 0)"

    def shown(page: str, actions: str) -> str:
        return f'Observation:\n"{page}"\n\nAvailable Actions:\n{actions}'

    turns = [
        ("human", "Buy."),
        ("gpt", "Ok."),
        ("human", shown("WebShop [SEP] Instruction: [SEP] a mug [SEP] Search", BAR)),
        ("gpt", "Action:\nsearch[mug]"),
        ("human", shown(page, BAR.replace("True", "False"))),
        ("gpt", "Action:\nclick[back to search]"),
    ]
    conversations = [
        {"from": who, "loss": None if who == "human" else value != "Ok.", "value": value}
        for who, value in turns
    ]
    file = tmp_path / "webshop.jsonl"
    file.write_text(json.dumps({"id": "webshop_0", "conversations": conversations}), "utf-8")
    spec = load_environment("webshop", prompt="published", agentinstruct=str(file))
    assert dict(spec.wording().pieces) == {
        "first": 'Observation:\n"{observation}"\n\nAvailable Actions:\n{actions}',
        "feedback": 'Observation:\n"{observation}"\n\nAvailable Actions:\n{actions}',
    }


BAR = "{'has_search_bar': True, 'clickables': ['search']}"
