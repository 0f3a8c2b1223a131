"""Rewards of a collection's rows: in the build, as a filter, in the fingerprint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dataset_builders.collection.card import DatasetCard
from dataset_builders.collection.output import OutputWriter
from dataset_builders.environments import load_environment
from dataset_builders.errors import DataError
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import load_source
from dataset_builders.sources.spec import SourceSpec

REWARDS = [1.0, 0.0, 0.5, 1.0]


@pytest.fixture(params=[False, True], ids=["agentinstruct", "messages"])
def collected(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Four rows, with a reward each, in both shapes that a collection has."""
    spec = load_environment("database")
    if request.param:
        spec = replace(spec, options={"dialogue": "tools"})
    played = play(spec, spec.task_ids("train")[: len(REWARDS)], OraclePolicy())
    with OutputWriter(tmp_path, spec, model="m") as output:
        for number, (trajectory, reward) in enumerate(zip(played, REWARDS, strict=True)):
            output.add(number, replace(trajectory, reward=reward))
        output.finish(DatasetCard(spec.name, "m", "own:1", 0.0))
    return tmp_path


def rewards(path: Path, minimum: float | None = None) -> list[float | None]:
    source = resolve_source(SourceSpec(str(path), min_reward=minimum))
    return [each.reward for each in load_source(source).conversations]


def test_rows_have_the_reward_that_was_earned(collected: Path) -> None:
    assert rewards(collected) == REWARDS


def test_rows_below_the_minimum_are_dropped_and_counted(collected: Path) -> None:
    assert rewards(collected, 0.5) == [1.0, 0.5, 1.0]
    found = load_source(resolve_source(SourceSpec(str(collected), min_reward=1)))
    assert found.report.dropped == {"reward_below_threshold": 2}
    assert found.report.kept == 2


def test_a_changed_reward_changes_the_fingerprint(collected: Path) -> None:
    before = resolve_source(str(collected)).fingerprint
    (path,) = (collected / "origins").iterdir()
    path.write_text(path.read_text("utf-8").replace('"reward": 0.5', '"reward": 0.75'), "utf-8")
    assert resolve_source(str(collected)).fingerprint != before
    assert rewards(collected) == [1.0, 0.0, 0.75, 1.0]


def test_a_folder_of_that_name_that_is_not_a_collections_is_left_alone(collected: Path) -> None:
    (collected / "origins/places.jsonl").write_text('{"place": "Rome"}\n', "utf-8")
    assert rewards(collected) == REWARDS


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":2: not JSON"),
        ("[1]", ":2: found '[1]', expected an id and a number as reward"),
        ('{"id": "db_1", "reward": "much"}', "expected an id and a number as reward"),
        ('{"reward": 1}', "expected an id and a number as reward"),
    ],
)
def test_a_damaged_line_is_named(collected: Path, line: str, message: str) -> None:
    (path,) = (collected / "origins").iterdir()
    lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join([lines[0], line, *lines[2:]]), "utf-8")
    with pytest.raises(DataError) as found:
        load_source(resolve_source(str(collected)))
    assert f"{path}" in str(found.value)
    assert message in str(found.value)
