"""An environment in a process of its own: real processes, killed, hung and abandoned."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataset_builders.environments import load_environment
from dataset_builders.environments.isolated import IsolatedDialogue
from dataset_builders.errors import ConfigError, EnvironmentFailureError

REPO = Path(__file__).resolve().parents[3]
SPEC = load_environment("database")


@pytest.fixture
def dialogue() -> Iterator[IsolatedDialogue]:
    with_limits = IsolatedDialogue(SPEC, SPEC.wording(), time_limit=30, max_episodes=2)
    yield with_limits
    with_limits.close()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_dead(pid: int, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


def test_it_plays_as_the_dialogue_itself_does(dialogue: IsolatedDialogue) -> None:
    inline = SPEC.make()
    options = {"task_id": "database-train-0003"}
    assert dialogue.reset(options=options) == inline.reset(options=options)
    assert dialogue.opening() == inline.opening()
    assert dialogue.task_ids("dev") == inline.task_ids("dev")
    assert dialogue.prompt.label == inline.prompt.label
    assert (dialogue.world, dialogue.round_limit) == (inline.world, inline.round_limit)
    assert dialogue.trim(dialogue.opening()) == inline.opening()
    here, there = inline.oracle(), dialogue.oracle()
    turn, over = next(here), False
    assert next(there) == turn
    while not over:
        answer = inline.step(turn)
        assert dialogue.step(turn) == answer
        over = answer[2]
        turn = turn if over else here.send(answer[0])
        assert over or there.send(answer[0]) == turn
    assert answer[1] == 1.0
    with pytest.raises(StopIteration):
        there.send("")


def test_it_is_stopped_as_the_dialogue_itself_is(dialogue: IsolatedDialogue) -> None:
    inline, options = SPEC.make(), {"task_id": "database-train-0003"}
    inline.reset(options=options)
    dialogue.reset(options=options)
    ended = dialogue.stop("context_full", valid_format=False, truncated=True)
    assert ended == inline.stop("context_full", valid_format=False, truncated=True)
    assert ended[4]["exit_reason"] == "context_full"


def test_errors_of_ours_come_back_as_they_are(dialogue: IsolatedDialogue) -> None:
    with pytest.raises(ConfigError, match="task 'x' is unknown"):
        dialogue.reset(options={"task_id": "x"})
    pid = dialogue.process_id
    dialogue.reset(options={"split": "train", "index": 0})
    assert dialogue.process_id == pid  # The child did not break.


def test_it_is_replaced_after_its_episodes(dialogue: IsolatedDialogue) -> None:
    pids = []
    for index in range(3):
        dialogue.reset(options={"split": "train", "index": index})
        pids.append(dialogue.process_id)
    assert pids[0] == pids[1] != pids[2]
    assert pids[0] is not None
    assert not alive(pids[0])


@pytest.mark.parametrize(
    ("name", "said"), [("SIGKILL", "died .exit code -9"), ("SIGSTOP", "no answer within 0.5 s")]
)
def test_a_dead_and_a_hung_child_end_the_episode_only(
    dialogue: IsolatedDialogue, name: str, said: str
) -> None:
    dialogue.reset(options={"split": "train", "index": 0})
    pid = dialogue.process_id
    assert pid is not None
    os.kill(pid, getattr(signal, name))
    dialogue.time_limit = 0.5
    with pytest.raises(EnvironmentFailureError, match=said):
        dialogue.step("Action: Operation\n```sql\nSELECT 1\n```")
    assert not alive(pid)
    with pytest.raises(EnvironmentFailureError, match="call reset"):
        dialogue.step("Final Answer: []")
    dialogue.time_limit = 30
    assert dialogue.reset(options={"split": "train", "index": 0})[1]["valid_action"]


def test_close_ends_the_child_and_its_folder(dialogue: IsolatedDialogue) -> None:
    dialogue.reset(options={"split": "train", "index": 0})
    pid, child = dialogue.process_id, dialogue._child
    assert pid is not None
    assert child is not None
    assert alive(pid)
    assert child.folder.exists()
    dialogue.close()
    dialogue.close()
    assert not alive(pid)
    assert not child.folder.exists()


def test_what_a_killed_parent_left_is_swept(
    dialogue: IsolatedDialogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen(["true"])
    ended.wait()
    left, living = (tmp_path / f"agenttuning-of-{pid}-x" for pid in (ended.pid, os.getpid()))
    left.mkdir()
    living.mkdir()
    dialogue.reset(options={"split": "train", "index": 0})
    assert not left.exists()
    assert living.exists()


def test_a_forgotten_child_ends_with_its_object() -> None:
    forgotten = IsolatedDialogue(SPEC, SPEC.wording())
    forgotten.reset(options={"split": "train", "index": 0})
    pid = forgotten.process_id
    assert pid is not None
    assert alive(pid)
    del forgotten
    gc.collect()
    assert not alive(pid)


BUSY = """
import re
import subprocess
from dataset_builders.environments import EnvironmentSpec
from dataset_builders.environments.database.dialogue import DatabaseDialogue

class BusyDialogue(DatabaseDialogue):
    own_prompt = DatabaseDialogue.own_prompt

    def parse(self, turn):
        if turn == "start":
            return str(subprocess.Popen(["sleep", "600"]).pid)
        if turn == "hold":  # One call into C that keeps the interpreter for ages.
            re.match("(a+)+$", "a" * 60 + "b")
        return super().parse(turn)

class BusySpec(EnvironmentSpec):
    dialogue = BusyDialogue
"""

PARENT = """
import sys, time
from busy import BusySpec
from dataset_builders.environments.isolated import IsolatedDialogue
spec = BusySpec("database")
dialogue = IsolatedDialogue(spec, spec.wording())
dialogue.reset(options={"split": "train", "index": 0})
dialogue._child.pipe.send(("parse", (sys.argv[1],), {}))
time.sleep(0.3)
started = dialogue._child.pipe.recv()[1] if sys.argv[1] == "start" else dialogue.process_id
print(dialogue.process_id, started, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("turn", ["idle", "hold", "start"])
def test_the_child_dies_with_its_parent_even_by_kill_9(tmp_path: Path, turn: str) -> None:
    (tmp_path / "busy.py").write_text(BUSY)
    paths = os.pathsep.join([str(tmp_path), str(REPO)])
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, turn],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": paths},
    ) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert all(map(alive, pids))
        parent.kill()
    assert all(map(wait_until_dead, pids))
