"""`train_on: state_changing`: turns that changed the world, recorded or found by playing again."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from dataset_builders.collection.attempts import stored_collections
from dataset_builders.collection.collector import run
from dataset_builders.collection.engine import RolloutConfig
from dataset_builders.collection.marked import Markers, read_marked
from dataset_builders.collection.settings import CollectConfig
from dataset_builders.collection.state_changes import changed_turns, collection_of
from dataset_builders.conversation import Conversation
from dataset_builders.environments import EnvironmentSpec, load_environment
from dataset_builders.errors import ConfigError, DataError
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy, ScriptedPolicy
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import load_source
from tests.support.graph_samples import write_slice
from tests.support.own_environments import write_desk
from tests.support.webshop_samples import write_small_catalogue

SAVED = Path(__file__).parents[2] / "assets/saved"
LOOK = "I look.\nAction: Operation\n```sql\nSELECT 1\n```"


def loaded(path: Path) -> list[Conversation]:
    return list(load_source(resolve_source(str(path))).conversations)


def chosen(folder: Path) -> tuple[dict[str, list[int]], Counter[str]]:
    counts: Counter[str] = Counter()
    found = changed_turns(folder, loaded(folder), counts)
    return {conversation.id: turns for conversation, turns in found}, counts


def forget_marks(folder: Path) -> None:
    """Remove what collections of earlier versions do not have."""
    with closing(sqlite3.connect(next(folder.glob("collection/*.sqlite")))) as database:
        rows = database.execute("SELECT rowid, trajectory FROM attempts").fetchall()
        for number, text in rows:
            values = json.loads(text)
            del values["state_changes"]
            database.execute(
                "UPDATE attempts SET trajectory = ? WHERE rowid = ?", (json.dumps(values), number)
            )
        database.commit()


def test_a_collection_records_the_turns_that_changed_the_world(noisy: Path) -> None:
    turns, counts = chosen(noisy)
    assert counts == {"recorded": 10}
    (collection,) = stored_collections(noisy)
    for stored in collection.attempts():
        played = stored.trajectory
        assert len(played.state_changes) == played.num_rounds
        if played.reward == 1.0:
            # A change and its answer; of a question only the answer, which ends the task.
            is_change = played.details["kind"] in ("insert", "update", "delete")
            assert turns[f"db_{stored.place}"] == ([3, 5] if is_change else [5])


def test_playing_again_finds_what_was_recorded(noisy: Path, tmp_path: Path) -> None:
    old = Path(shutil.copytree(noisy, tmp_path / "old"))
    forget_marks(old)
    turns, counts = chosen(old)
    assert counts == {"replayed": 10}
    assert turns == chosen(noisy)[0]
    # Failed attempts of `failed: marked` too, several at one task.
    rows, _ = read_marked(old, Markers("A", "B", 0.5))
    counts.clear()
    with_failed = {each.id: turns for each, turns in changed_turns(old, rows, counts)}
    assert counts == {"replayed": 16}
    assert turns.items() < with_failed.items()
    assert {name: n for name, n in with_failed.items() if "failed" in name}.values()


def test_a_collection_of_an_earlier_version_is_played_again() -> None:
    assert chosen(SAVED / "collected") == (
        {"db_0": [5], "db_1": [5], "db_2": [3, 5]},
        Counter(replayed=3),
    )


def test_all_turns_stay_where_the_world_answers_otherwise(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(SAVED / "collected", tmp_path / "old"))
    with closing(sqlite3.connect(folder / "collection/database.sqlite")) as database:
        database.execute(
            "UPDATE attempts SET trajectory = replace(trajectory, 'Paper Garden', 'Paper Roses') "
            "WHERE task_id = (SELECT task_id FROM tasks WHERE place = 0)"
        )
        database.commit()
    assert chosen(folder) == (
        {"db_0": [1, 3, 5], "db_1": [5], "db_2": [3, 5]},
        Counter(replayed=2, replay_diverged=1),
    )


DIGEST = """    def state_digest(self):
        return str(self.paid)

    @tool
    def look("""


@pytest.mark.parametrize("isolation", ["process", "inline"])
def test_an_own_environment_says_what_its_state_is(isolation: str, tmp_path: Path) -> None:
    place = write_desk(tmp_path, "    @tool\n    def look(", DIGEST)
    file = Path(place.rpartition(":")[0])
    text = file.read_text("utf-8").replace(
        "    round_limit = 4", f'    round_limit = 4\n    isolation = "{isolation}"'
    )
    file.write_text(text.replace('yield "pay"', 'yield "look", {}\n        seen = yield "pay"'))
    out = tmp_path / "collected"
    run(CollectConfig(RolloutConfig(load_environment(place)), out))
    turns, counts = chosen(out)
    # Looking changes nothing; the text at the end ends the task.
    assert turns == {"desk_0": [4, 6], "desk_1": [4, 6]}
    assert counts == {"recorded": 2}


def test_an_environment_that_does_not_say_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "collected"
    run(CollectConfig(RolloutConfig(load_environment(write_desk(tmp_path))), out))
    with pytest.raises(DataError, match=r"^desk: train_on: state_changing: this environment does"):
        chosen(out)
    monkeypatch.chdir(out)
    with pytest.raises(ConfigError, match=r"needs the environment desk.py:Desk, in the working"):
        chosen(out)


def test_a_wrong_digest_ends_only_its_episode(tmp_path: Path) -> None:
    place = write_desk(tmp_path, "    @tool\n    def look(", DIGEST.replace("str(self.paid)", "7"))
    spec = load_environment(place)
    (played,) = play(spec, spec.task_ids("train")[:1], OraclePolicy(), marks_state=True)
    assert played.exit_reason == "environment_error"
    assert "state_digest: found int, expected text" in played.error


def test_evaluation_does_not_look_at_the_state() -> None:
    spec = load_environment("database")
    (played,) = play(spec, spec.task_ids("test")[:1], ScriptedPolicy([LOOK]))
    assert played.state_changes == ()


def test_only_a_collection_has_states(noisy: Path, tmp_path: Path) -> None:
    assert collection_of(noisy) == noisy
    assert collection_of(noisy / "data/db-00000-of-00001.parquet") == noisy
    with pytest.raises(ConfigError, match="expected a folder made by `agenttuning collect`"):
        collection_of(tmp_path)
    with pytest.raises(DataError, match="found no attempt 'other_1'"):
        list(changed_turns(noisy, [Conversation("other_1", "", "db", ())], Counter()))


def marks_of_the_oracle(spec: EnvironmentSpec) -> Trajectory:
    (played,) = play(spec, spec.task_ids("train")[:1], OraclePolicy(), marks_state=True)
    assert played.success
    assert len(played.state_changes) == played.num_rounds
    assert played.state_changes[-1]
    return played


def test_pages_of_the_shop_are_its_state(tmp_path: Path) -> None:
    pytest.importorskip("rapidfuzz")
    spec = load_environment("webshop", data=str(write_small_catalogue(tmp_path)))
    assert all(marks_of_the_oracle(spec).state_changes)
    (played,) = play(
        spec,
        spec.task_ids("train")[:1],
        ScriptedPolicy(["Action: click[nothing]"]),
        marks_state=True,
    )
    assert not any(played.state_changes)


def test_variables_are_the_state_of_the_knowledge_graph(tmp_path: Path) -> None:
    pytest.importorskip("pyoxigraph")
    spec = load_environment("knowledge_graph", data=str(write_slice(tmp_path)))
    played = marks_of_the_oracle(spec)
    # Relations are looked up, neighbours become a variable.
    assert False in played.state_changes
    assert played.state_changes.count(True) >= 2


def test_facts_are_the_state_of_alfworld() -> None:
    spec = load_environment("alfworld")
    if missing := spec.dialogue.world.missing():
        pytest.skip(missing)
    assert marks_of_the_oracle(spec).num_rounds > 1
