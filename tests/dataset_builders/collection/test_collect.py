from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dataset_builders.collection.collector import run, state_path
from dataset_builders.collection.conversations import to_conversation, write_jsonl
from dataset_builders.collection.engine import RolloutConfig
from dataset_builders.collection.filters import TrajectoryFilter
from dataset_builders.collection.output import SOURCE
from dataset_builders.collection.settings import CollectConfig, draw_tasks
from dataset_builders.collection.store import SqliteRolloutLog
from dataset_builders.conversation import Conversation, Message, ToolCall, from_row
from dataset_builders.environments import HELD_IN, load_environment
from dataset_builders.environments.base import StepResult, TextEnvironment
from dataset_builders.environments.database.dialogue import DatabaseDialogue
from dataset_builders.environments.database.environment import DatabaseEnvironment
from dataset_builders.environments.prompts import Prompt
from dataset_builders.errors import ConfigError
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy, Policy, ScriptedPolicy

WRONG = "No idea.\nAction: Answer\nFinal Answer: [-1]"
SELECT = "Hm.\nAction: Operation\n```sql\nSELECT 1\n```"


def collect(out: Path, name: str = "database", **settings: Any) -> dict[str, Any]:
    """Collect with the oracle; returns the report."""
    play = {key: settings.pop(key) for key in ("min_reward",) if key in settings}
    return run(CollectConfig(RolloutConfig(load_environment(name), **play), out, **settings))


def played(policy: Policy, num_tasks: int, min_reward: float = 1.0) -> dict[str, int]:
    """Counts of what a policy's trajectories in the database are kept or dropped for."""
    database, sieve = load_environment("database"), TrajectoryFilter(min_reward)
    for trajectory in play(database, draw_tasks(database.task_ids("train"), num_tasks, 0), policy):
        sieve.keeps(trajectory)
    return dict(sieve.counts)


def test_the_oracle_collects_what_it_plays(tmp_path: Path) -> None:
    report = collect(tmp_path, num_tasks=30)
    assert (report["done"], report["kept"], report["dropped"]) == (30, 30, {})
    with closing(SqliteRolloutLog(state_path(tmp_path, "database"))) as store:
        trajectories = [ending.trajectory for _, ending in store.endings()]
    assert len({trajectory.task_id for trajectory in trajectories}) == 30
    train = set(load_environment("database").task_ids("train"))
    for conversation in map(to_conversation, trajectories):
        assert conversation.id in train
        assert (conversation.source, conversation.task) == (SOURCE, "database")
        assert [message.trained for message in conversation.messages] == [
            *(False, False, False),
            *(True, False, True),
        ]


def test_tasks_are_drawn_by_seed(tmp_path: Path) -> None:
    def ids(num_tasks: int, seed: int) -> list[str]:
        config = RolloutConfig(load_environment("database"))
        return CollectConfig(config, tmp_path, num_tasks, seed=seed).chosen()

    assert ids(20, 1) == ids(20, 1)
    assert ids(20, 1) != ids(20, 2)
    assert ids(20, 1)[:5] == ids(5, 1)
    assert ids(20, 1) != sorted(ids(20, 1))


@pytest.mark.parametrize(
    ("replies", "reason"),
    [
        ([WRONG], "reward_below_threshold"),
        ([SELECT, "I am done."], "bad_format"),
        ([SELECT], "round_limit"),
        ([SELECT, None], "context_full"),
    ],
)
def test_failures_are_dropped_and_counted(replies: list[str | None], reason: str) -> None:
    assert played(ScriptedPolicy(replies), 8) == {"played": 8, "kept": 0, reason: 8}


def test_threshold_zero_keeps_failures_that_can_be_trained() -> None:
    assert played(ScriptedPolicy([WRONG]), 4, min_reward=0) == {"played": 4, "kept": 4}
    silent = played(ScriptedPolicy([None]), 4, min_reward=0)
    assert silent == {"played": 4, "kept": 0, "nothing_trained": 4}


class BrokenDatabase(DatabaseEnvironment):
    def _act(self, action: str) -> StepResult:
        raise OSError("disk is gone")


class BrokenDialogue(DatabaseDialogue):
    world: ClassVar[type[TextEnvironment]] = BrokenDatabase

    @classmethod
    def own_prompt(cls) -> Prompt:
        return DatabaseDialogue.own_prompt()


def test_broken_environments_are_never_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(HELD_IN, "broken", f"{__name__}:BrokenDialogue")
    report = collect(tmp_path, "broken", num_tasks=3, min_reward=0)
    assert (report["kept"], report["dropped"]) == (0, {"environment_error": 3})


@pytest.mark.parametrize("split", ["test", "dev", "validation"])
def test_evaluation_splits_are_refused(split: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only 'train'"):
        collect(tmp_path, split=split, num_tasks=1)


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="known: "):
        collect(tmp_path, "webarena", num_tasks=1)
    with pytest.raises(ConfigError, match="num_tasks: found 0, expected 1 to 2000"):
        collect(tmp_path, num_tasks=0)
    with pytest.raises(ConfigError, match="num_tasks: found 2001"):
        collect(tmp_path, num_tasks=2001)
    with pytest.raises(ConfigError, match="min_reward"):
        collect(tmp_path, num_tasks=1, min_reward=1.5)


def test_written_lines_are_read_back(tmp_path: Path) -> None:
    database = load_environment("database")
    oracle = play(database, database.task_ids("train")[:12], OraclePolicy())
    conversations = [to_conversation(trajectory) for trajectory in oracle]
    path = tmp_path / "new" / "folder" / "train.jsonl"
    write_jsonl(path, conversations)
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [from_row(row) for row in rows] == conversations
    assert list(path.parent.iterdir()) == [path]


def test_tool_calls_are_written(tmp_path: Path) -> None:
    call = ToolCall(name="query", arguments='{"sql": "SELECT 1"}', id="c1")
    messages = [Message("assistant", "", trained=True, tool_calls=(call,))]
    conversation = Conversation.create([*messages, Message("tool", "1", tool_call_id="c1")])
    write_jsonl(tmp_path / "a.jsonl", [conversation])
    assert from_row(json.loads((tmp_path / "a.jsonl").read_text("utf-8"))) == conversation


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("old", "utf-8")
    broken = Conversation.create([Message("user", "\ud800")])
    with pytest.raises(UnicodeEncodeError):
        write_jsonl(path, [broken])
    assert path.read_text("utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_collected_makes_an_empty_file(tmp_path: Path) -> None:
    write_jsonl(str(tmp_path / "none.jsonl"), [])
    assert (tmp_path / "none.jsonl").read_bytes() == b""


def test_a_trajectory_becomes_a_conversation() -> None:
    messages = (Message("user", "a"), Message("assistant", "b", trained=True))
    trajectory = Trajectory("t-1", "database", "train", messages, 1.0, "answered", 1, 1)
    assert to_conversation(trajectory) == Conversation("t-1", "collected", "database", messages)
