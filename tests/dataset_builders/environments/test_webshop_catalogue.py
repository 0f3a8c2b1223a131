"""WebShop's catalogue, index, goals and splits, on a catalogue that is made up."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.environments import load_environment
from dataset_builders.environments.webshop.environment import WebShopEnvironment
from dataset_builders.environments.webshop.goals import make_goals
from dataset_builders.environments.webshop.shop import find_files, load_shop
from dataset_builders.errors import (
    ConfigError,
    DataError,
    MissingExtraError,
    SourceNotFoundError,
    StorageError,
)
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from tests.support.webshop_samples import (
    ADJECTIVES,
    KINDS,
    product,
    write_catalogue,
)

pytestmark = [
    pytest.mark.skipif(
        find_spec("rapidfuzz") is None, reason="the extra webshop is not installed: no rapidfuzz"
    ),
    pytest.mark.usefixtures("home"),
]


def test_splits_share_no_product(world: WebShopEnvironment) -> None:
    shop = world.shop
    asins = {
        split: {shop.goals[index].asin for index in indices}
        for split, indices in shop.splits.items()
    }
    assert shop.splits["test"] == tuple(range(200))
    assert shop.splits["dev"] == tuple(range(200, 280))
    assert shop.splits["train"]
    assert not asins["train"] & (asins["test"] | asins["dev"])
    assert world.task_ids("test")[7] == "webshop-test-00007"


@pytest.mark.parametrize(
    "task_id",
    ["webshop-test-00200", "webshop-train-00000", "webshop-test-000007", "webshop-all-00001", "x"],
)
def test_unknown_tasks_are_refused(world: WebShopEnvironment, task_id: str) -> None:
    with pytest.raises(ConfigError, match="such as webshop-test-00000"):
        world.reset(options={"task_id": task_id})


def test_an_unnamed_task_is_drawn_by_weight(world: WebShopEnvironment) -> None:
    drawn = [world.reset(seed=seed)[1]["task_id"] for seed in range(30)]
    again = [world.reset(seed=seed)[1]["task_id"] for seed in range(30)]
    assert drawn == again
    assert len(set(drawn)) > 15
    assert all(task_id in world.task_ids("train") for task_id in drawn)


def test_a_price_is_a_part_of_the_goal(world: WebShopEnvironment) -> None:
    limits = {goal.asin: goal.price_limit for goal in world.shop.goals}
    cheap = [limits[f"B{n:05d}"] for n in range(450) if n % 3 == 1]
    assert set(cheap) == {30.0, 40.0, 50.0}  # of 20, 30, 40, 50 the larger of two
    dear = {limits[f"B{n:05d}"] for n in range(450) if n % 3 == 2}
    assert dear == {1_000_000.0}
    for goal in world.shop.goals:
        named = f", and price lower than {goal.price_limit:.2f} dollars"
        assert goal.instruction.endswith(named) == (goal.price_limit < 1_000_000)


def test_peoples_goals_are_used_where_there_are_any(tmp_path: Path) -> None:
    records = [product(number) for number in range(3)]
    folder = write_catalogue(tmp_path, records, name="")
    wish = {
        "instruction": "i need a lamp in red.",
        "instruction_attributes": ["durable"],
        "instruction_options": ["bright red"],
    }
    unusable = wish | {"instruction_attributes": []}
    human = {"B00000": [wish, unusable, wish | {"instruction": "a red one for the desk"}]}
    (folder / "items_human_ins.json").write_text(json.dumps(human), "utf-8")
    spec = load_environment("webshop", data=str(folder))
    shop = load_shop(find_files("webshop", folder, ()))
    assert sorted(goal.wish for goal in shop.goals) == [
        "a red one for the desk",
        "i need a lamp in red.",
    ]
    assert any(goal.instruction.startswith("i need a lamp in red, and") for goal in shop.goals)
    assert [played.reward for played in play(spec, spec.task_ids("test"), OraclePolicy())] == [
        1.0,
        1.0,
    ]
    assert len(make_goals(shop.index.wished(), human=False)) == 12
    with pytest.raises(ConfigError, match="2 goals leave none for training"):
        WebShopEnvironment(folder).reset()


def test_many_threads_search_one_index(world: WebShopEnvironment) -> None:
    index = world.shop.index
    queries = [f"{adjective} {kind}" for adjective in ADJECTIVES for kind in KINDS] * 5
    alone = [index.search(query) for query in queries]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(index.search, queries)) == alone
    assert all(len(set(hits)) == len(hits) <= 50 for hits in alone)


def test_the_index_is_built_once(catalogue: Path, home: Path) -> None:
    load_shop(find_files("webshop", catalogue, ()))
    folder = home / ".cache/agenttuning/environments/webshop"
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    said: list[str] = []
    WebShopEnvironment.setup(catalogue, said.append)
    assert said[-1] == "webshop: 1,800 goals"
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    assert all(name.endswith(".sqlite") for name in before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": None}, "record 2: name: found NoneType, expected text"),
        ({"pricing": "$free"}, "record 2: product B00001: not a WebShop product: ValueError"),
        ({"customization_options": {"Size": ["s"]}}, "product B00001: not a WebShop product"),
        ({"asin": 7}, "record 2: asin: found int, expected text"),
    ],
)
def test_a_bad_record_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    records = [product(number) for number in range(3)]
    folder = write_catalogue(tmp_path, records)
    records[1] |= change
    (folder / "items_shuffle_1000.json").write_text(json.dumps(records), "utf-8")
    with pytest.raises(DataError, match=message) as caught:
        WebShopEnvironment(folder).task_ids("test")
    assert "\n" not in str(caught.value)


def test_a_catalogue_that_is_cut_short_is_refused(tmp_path: Path, home: Path) -> None:
    folder = write_catalogue(tmp_path, [product(number) for number in range(300, 303)])
    file = folder / "items_shuffle_1000.json"
    file.write_text(file.read_text("utf-8")[:-40], "utf-8")
    cache = home / ".cache/agenttuning/environments/webshop"
    before = sorted(cache.iterdir()) if cache.is_dir() else []
    with pytest.raises(DataError, match=r"items_shuffle_1000\.json"):
        WebShopEnvironment(folder).task_ids("test")
    assert (sorted(cache.iterdir()) if cache.is_dir() else []) == before
    (folder / "items_ins_v2_1000.json").write_text("[]", "utf-8")
    with pytest.raises(DataError, match="found list, expected an object"):
        WebShopEnvironment(folder).task_ids("test")


def test_products_without_wishes_make_no_tasks(tmp_path: Path) -> None:
    folder = write_catalogue(tmp_path, [product(0)])
    (folder / "items_ins_v2_1000.json").write_text("{}", "utf-8")
    with pytest.raises(DataError, match="no product with an instruction"):
        WebShopEnvironment(folder).task_ids("test")


def test_missing_data_is_one_line_that_says_what_to_put_where(tmp_path: Path) -> None:
    line = WebShopEnvironment.missing(tmp_path)
    assert "items_shuffle_1000.json" in line
    assert str(tmp_path) in line
    assert "\n" not in line
    with pytest.raises(SourceNotFoundError):
        WebShopEnvironment(tmp_path).task_ids("train")


def test_without_rapidfuzz_the_install_line_is_given(
    catalogue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rapidfuzz", None)
    assert "pip install 'agenttuning-plugin[webshop]'" in WebShopEnvironment.missing(catalogue)
    with pytest.raises(MissingExtraError):
        WebShopEnvironment(catalogue).reset(options={"split": "test", "index": 0})


def test_an_index_that_cannot_be_written_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    folder = write_catalogue(tmp_path / "data", [product(400)])
    with pytest.raises(StorageError, match="cannot be written"):
        WebShopEnvironment(folder).task_ids("test")
