from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest

from dataset_builders.collection.collect import SOURCE, collect, to_conversation, write_jsonl
from dataset_builders.conversation import Conversation, Message, ToolCall, from_row
from dataset_builders.environments import HELD_IN, load_environment
from dataset_builders.environments.base import StepResult, TextEnvironment
from dataset_builders.environments.database.dialogue import DatabaseDialogue
from dataset_builders.environments.database.environment import DatabaseEnvironment
from dataset_builders.environments.prompts import Prompt
from dataset_builders.errors import ConfigError
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.rollout import ScriptedPolicy

WRONG = "No idea.\nAction: Answer\nFinal Answer: [-1]"
SELECT = "Hm.\nAction: Operation\n```sql\nSELECT 1\n```"


def test_the_oracle_collects_what_it_plays() -> None:
    seen: list[Trajectory] = []
    result = collect("database", num_tasks=30, on_progress=seen.append)
    assert result.counts == {"played": 30, "kept": 30}
    assert len({trajectory.task_id for trajectory in seen}) == 30
    train = set(load_environment("database").task_ids("train"))
    for conversation in result.conversations:
        assert conversation.id in train
        assert (conversation.source, conversation.task) == (SOURCE, "database")
        assert [message.trained for message in conversation.messages] == [
            *(False, False, False),
            *(True, False, True),
        ]


def test_tasks_are_drawn_by_seed() -> None:
    def ids(num_tasks: int, seed: int) -> list[str]:
        played = collect("database", num_tasks=num_tasks, seed=seed)
        return [conversation.id for conversation in played.conversations]

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
    result = collect("database", num_tasks=8, policy=ScriptedPolicy(replies))
    assert result.conversations == []
    assert result.counts == {"played": 8, "kept": 0, reason: 8}


def test_threshold_zero_keeps_failures_that_can_be_trained() -> None:
    kept = collect("database", num_tasks=4, policy=ScriptedPolicy([WRONG]), min_reward=0)
    assert kept.counts == {"played": 4, "kept": 4}
    silent = collect("database", num_tasks=4, policy=ScriptedPolicy([None]), min_reward=0)
    assert silent.counts == {"played": 4, "kept": 0, "nothing_trained": 4}


class BrokenDatabase(DatabaseEnvironment):
    def _act(self, action: str) -> StepResult:
        raise OSError("disk is gone")


class BrokenDialogue(DatabaseDialogue):
    world: ClassVar[type[TextEnvironment]] = BrokenDatabase

    @classmethod
    def own_prompt(cls) -> Prompt:
        return DatabaseDialogue.own_prompt()


def test_broken_environments_are_never_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HELD_IN, "broken", f"{__name__}:BrokenDialogue")
    result = collect("broken", num_tasks=3, min_reward=0)
    assert result.counts == {"played": 3, "kept": 0, "environment_error": 3}


@pytest.mark.parametrize("split", ["test", "dev", "validation"])
def test_evaluation_splits_are_refused(split: str) -> None:
    with pytest.raises(ConfigError, match="only 'train'"):
        collect("database", split=split, num_tasks=1)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="known: "):
        collect("webarena", num_tasks=1)
    with pytest.raises(ConfigError, match="num_tasks: found 0, expected 1 to 2000"):
        collect("database", num_tasks=0)
    with pytest.raises(ConfigError, match="num_tasks: found 2001"):
        collect("database", num_tasks=2001)
    with pytest.raises(ConfigError, match="min_reward"):
        collect("database", num_tasks=1, min_reward=1.5)


def test_written_lines_are_read_back(tmp_path: Path) -> None:
    conversations = collect("database", num_tasks=12).conversations
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
