"""The operating system task: format, data, checks; and its worlds in real boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builders.environments import load_environment
from dataset_builders.environments.base import OracleStep
from dataset_builders.environments.operating_system import tasks as tasks_module
from dataset_builders.environments.operating_system.checks import CHECKS, passes
from dataset_builders.environments.operating_system.dialogue import OperatingSystemDialogue
from dataset_builders.environments.operating_system.environment import (
    OperatingSystemEnvironment,
    plain_text,
)
from dataset_builders.environments.operating_system.scripts import KNOWN_SCRIPTS
from dataset_builders.errors import ConfigError, DataError, SourceNotFoundError
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy, ScriptedPolicy
from dataset_builders.rollouts.validation import validate
from tests.support.boxes import needs_box

INTEGER = {"language": "python", "file": "check/integer-match.py"}
UP = "import sys; assert sys.argv[1:] == ['up', 'from bash\\n']"
TASKS: list[dict[str, Any]] = [
    {
        "description": "How many lines has /root/poem?",
        "create": {"init": "printf 'a\\nb\\nc\\n' > /root/poem"},
        "evaluation": {"check": [None, INTEGER], "example": "wc -l < /root/poem"},
    },
    {
        "description": "Make /root/done.",
        "create": {"init": [{"code": "rm -f /root/done"}]},
        "evaluation": {"check": "test -f /root/done", "example": {"code": "touch /root/done"}},
    },
    {
        "description": "What is $word?",
        "start": "word=moss; sleep 300 &",
        "evaluation": {"match": "moss"},
    },
    {
        "description": "Name a tree.",
        "evaluation": {"match": {"regex": "^(oak|elm)$", "strip": False}},
    },
    {
        "description": "Which way is up?",
        "evaluation": {
            "check": [
                {"language": "bash", "code": 'test "$1" = up && echo from bash'},
                {
                    "language": "python",
                    "code": "import sys; assert sys.argv[1:] == ['up', 'from bash\\n']",
                },
            ]
        },
    },
]


def write_tasks(folder: Path, tasks: Any = TASKS) -> Path:
    (folder / "train_0317").mkdir(parents=True, exist_ok=True)
    (folder / "train_0317/training.json").write_text(json.dumps(tasks))
    (folder / "dev.json").write_text(json.dumps(TASKS[:1]))
    (folder / "4").mkdir(exist_ok=True)
    (folder / "4/N4.json").write_text(json.dumps(TASKS[0]))
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_tasks(tmp_path / "tasks")


def final(data: Path, number: int, *actions: str) -> tuple[float, dict[str, Any]]:
    """Score and info of an episode's last step."""
    world = OperatingSystemEnvironment(data)
    try:
        world.reset(options={"task_id": f"os-train-{number:04d}"})
        for action in actions:
            _, reward, over, _, info = world.step(action)
        assert over
        return reward, info
    finally:
        world.close()


# Format


@pytest.mark.parametrize(
    ("turn", "action"),
    [
        ("Think: x\n\nAct: bash\n\n```bash\nls\n```", "bash\nls"),
        ("Act: Bash\n```bash\na\nb\n```\nand\n```bash\nc\n```", "bash\na\nb\n\nc"),
        ("Act: bash\nls", "bash\n"),
        ("Act: bash\n```sh\nls\n```", "bash\n"),
        ("Think: y\nAct: finish", "finish"),
        ("Act: answer(42)", "answer\n42"),
        ("Act: answer( a (b) c )", "answer\n a (b) c "),
        ("Act: answer(1)\nAct: answer(2)", "answer\n2"),
        ("Act: bash\n```bash\nls\n```\nAct: finish", "finish"),
        ("Act: finish\nAct: answer 7", "finish"),
        ("Act:\nanswer(8)", "answer\n8"),
        ("Act: answer 7", None),
        ("Act: dance", None),
        ("ls", None),
        ("", None),
    ],
)
def test_turns_are_read_by_agentbenchs_rule(turn: str, action: str | None) -> None:
    assert OperatingSystemDialogue.read(None, turn) == action  # type: ignore[arg-type]


@given(
    text=st.text(st.characters(exclude_characters="\n`")),
    kind=st.sampled_from(["bash", "answer", "finish"]),
)
def test_what_is_written_is_read(text: str, kind: str) -> None:
    action = kind if kind == "finish" else f"{kind}\n{text}"
    turn = OperatingSystemDialogue.write(None, OracleStep("why", action))  # type: ignore[arg-type]
    assert OperatingSystemDialogue.read(None, turn) == action  # type: ignore[arg-type]


def test_outputs_are_worded(data: Path) -> None:
    dialogue = load_environment("os", data=data).make()
    assert dialogue.feedback("x", {"truncated": False}) == "Printed:\nx"
    assert dialogue.feedback("x", {"truncated": True}) == "Printed:\nx\n[the rest is left out]"
    assert dialogue.feedback("", {}) == "Nothing was printed."


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("\x1b]0;root@box: /\x07root#", "root#"),
        ("\x1b[01;34mbin\x1b[0m\x1b[K", "bin"),
        ("a\r\nb\tc\x08\x00\x7f", "a\nb\tc"),
        ("\x1bPq#0;2\x1b\\x\x1b(B\x1bcy\x9b31m", "xy31m"),
        ("\x1b]52;c;aGk=\x1b\\done", "done"),
    ],
)
def test_terminal_escapes_are_taken_out(raw: str, plain: str) -> None:
    assert plain_text(raw) == plain


@given(st.text())
def test_plain_text_holds_nothing_for_a_terminal(text: str) -> None:
    plain = plain_text(text)
    assert not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in plain)
    assert plain_text(plain) == plain


# Checks


@pytest.mark.parametrize(
    ("name", "answer", "expected", "passed"),
    [
        ("integer-match", " 12\n", "12\n", True),
        ("integer-match", "12.0", "12", False),
        ("integer-match", "None", "12", False),
        ("string-match", "a\r\nb ", "a\nb\n", True),
        ("string-match", "A", "a", False),
        ("size-match", "4K", "4096\n", True),
        ("size-match", "1M", "1024K", True),
        ("size-match", "4.0K", "4.0K\n", True),
        ("size-match", "4KB", "4K", False),
        ("size-match", "big", "4K", False),
        ("containing", "it is oak", "oak\n", True),
        ("in", "oak", "an oak\n", True),
        ("in", "elm", "an oak\n", False),
    ],
)
def test_checks(name: str, answer: str, expected: str, passed: bool) -> None:
    assert passes(name, answer, expected) is passed


@given(name=st.sampled_from(sorted(CHECKS)), answer=st.text(), expected=st.text())
def test_checks_never_raise(name: str, answer: str, expected: str) -> None:
    assert passes(name, answer, expected) in (True, False)


# Data


def test_identifiers(data: Path) -> None:
    world = OperatingSystemEnvironment(data)
    assert world.task_ids("train") == tuple(f"os-train-{n:04d}" for n in range(len(TASKS)))
    assert world.task_ids("dev") == ("os-dev-000",)
    assert world.task_ids("test") == ("os-test-4-N4-000",)
    with pytest.raises(ConfigError, match="known: train, dev, test"):
        world.task_ids("valid")
    for unknown in ("os-train-9999", "os-nowhere-1", "os-", "x"):
        with pytest.raises(ConfigError, match="unknown"):
            world.reset(options={"task_id": unknown})


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("x", "record 1: description: found 'x', expected a task with a description"),
        ({"description": "d"}, "record 1: evaluation: found 'None', expected a match or a check"),
        ({"description": "d", "evaluation": {"match": 3}}, "evaluation.match: found '3'"),
        ({"description": "d", "evaluation": {"check": [None]}}, "evaluation.example: found 'None'"),
        (
            {"description": "d", "evaluation": {"check": {"language": "ruby", "code": "1"}}},
            "evaluation.check.language: found 'ruby', expected bash or python",
        ),
        (
            {"description": "d", "evaluation": {"check": {"file": "check/9.sh"}}},
            "evaluation.check.file: found 'check/9.sh', expected a known script, or the file",
        ),
        ({"description": "d", "start": {}, "evaluation": {"match": "m"}}, "start: found '{}'"),
    ],
)
def test_bad_records_are_named(tmp_path: Path, record: Any, message: str) -> None:
    world = OperatingSystemEnvironment(write_tasks(tmp_path, [TASKS[0], record]))
    with pytest.raises(DataError) as caught:
        world.task_ids("train")
    assert message in str(caught.value)
    assert "training.json: record 1" in str(caught.value)


def test_bad_files_are_named(tmp_path: Path) -> None:
    write_tasks(tmp_path)
    (tmp_path / "dev.json").write_text("{")
    with pytest.raises(DataError, match=r"dev\.json: is not JSON"):
        OperatingSystemEnvironment(tmp_path).task_ids("dev")
    (tmp_path / "dev.json").unlink()
    with pytest.raises(DataError, match=r"dev\.json: cannot be read"):
        OperatingSystemEnvironment(tmp_path).task_ids("dev")
    with pytest.raises(SourceNotFoundError, match=r"no train_0317/training.json in .*: put Agent"):
        OperatingSystemEnvironment(tmp_path / "absent").task_ids("dev")
    assert "put AgentBench's" in OperatingSystemEnvironment.missing(tmp_path / "absent")


def test_a_folders_own_scripts_are_preferred(tmp_path: Path) -> None:
    named = {**TASKS[1], "create": {"init": {"file": "init/stock-log.sh"}}}
    folder = write_tasks(tmp_path, [named])
    (task,) = tasks_module.load_tasks(folder, "train").values()
    assert task.init[0].code == KNOWN_SCRIPTS["init/stock-log.sh"]
    (folder / "scripts/7/init").mkdir(parents=True)
    (folder / "scripts/7/init/stock-log.sh").write_text("echo own")
    tasks_module._load.cache_clear()
    (task,) = tasks_module.load_tasks(folder, "train").values()
    assert task.init[0].code == "echo own"


# Worlds


def test_the_oracle_earns_one_and_idling_nothing(data: Path) -> None:
    needs_box()
    spec = load_environment("os", data=data)
    played = play(spec, spec.task_ids("train")[:3], OraclePolicy())
    assert [t.reward for t in played] == [1.0, 1.0, 1.0]
    assert [t.exit_reason for t in played] == ["answered", "finished", "answered"]
    assert validate(spec, split="dev").ok
    stuck = play(spec, ["os-train-0003"], OraclePolicy())[0]
    assert "no solution" in stuck.error


@pytest.mark.parametrize(
    ("number", "action", "score"),
    [
        (0, "answer\n3", 1.0),
        (0, "answer\n4", 0.0),
        (0, "answer\nthree", 0.0),
        (0, "finish", 0.0),
        (1, "finish", 0.0),
        (2, "answer\n moss ", 1.0),
        (2, "finish", 0.0),
        (3, "answer\nelm", 1.0),
        (3, "answer\nelm ", 0.0),
        (3, "finish", 0.0),
        (4, "answer\nup", 1.0),
        (4, "answer\ndown", 0.0),
        (4, "answer\nu\0p", 1.0),
        (4, "answer\nup\ud800", 0.0),
    ],
)
def test_scores(data: Path, number: int, action: str, score: float) -> None:
    needs_box()
    reward, info = final(data, number, action)
    assert reward == info["score"] == score
    assert info["exit_reason"] == ("finished" if action == "finish" else "answered")


def test_observations(data: Path) -> None:
    needs_box()
    world = OperatingSystemEnvironment(data, silence_seconds=3.0)  # longer than a busy stall
    try:
        observation, info = world.reset(options={"task_id": "os-train-0002"})
        assert observation == info["instruction"] == "What is $word?"
        assert world.step("bash\necho $word")[0] == "moss\n"
        # What the start script left running goes on.
        # On a busy machine its process is still named bash for a moment.
        wait = "until pgrep -x sleep > /dev/null; do :; done"
        assert world.step(f"bash\n{wait}; pgrep -c sleep")[0] == "1\n"
        for length, shown in ((800, 800), (801, 780)):
            observation, _, _, _, info = world.step(f"bash\nprintf %{length}s x")
            assert (len(observation), info["truncated"]) == (shown, length > 800)
        assert world.step("bash\nsleep 60")[4]["timed_out"]
        assert world.step("bash\nprintf '\\033[2J\\033]0;x\\007clean'")[0] == "clean"
        for odd in ("bash", "bash\n", "bash\n)", "bash\n\udcff", "", "dance"):
            _, _, over, _, info = world.step(odd)
            assert not over
            assert info["valid_action"] == odd.startswith("bash")
        world.step("bash\nuseradd -m -s /bin/bash ann && su - ann")
        assert world.step("bash\nwhoami; pwd")[0] == "ann\n/home/ann\n"
        assert world.step("answer\nmoss")[1] == 1.0
    finally:
        world.close()


def test_files_are_the_state(data: Path) -> None:
    needs_box()
    world = OperatingSystemEnvironment(data)
    try:
        world.reset(options={"task_id": "os-train-0002"})
        before = world.state_digest()
        for reading in ("ls -la /tmp; echo hi", "cat /etc/passwd > /dev/null; x=1; cd /"):
            world.step(f"bash\n{reading}")
            assert world.state_digest() == before
        seen = [before]
        for change in ("touch /tmp/a", "echo b >> /tmp/a", "chmod 600 /tmp/a", "rm /etc/hostname"):
            world.step(f"bash\n{change}")
            seen.append(world.state_digest())
        assert len(set(seen)) == len(seen)
    finally:
        world.close()


def test_a_dialogue_ends_by_its_limits(data: Path) -> None:
    needs_box()
    spec = load_environment("os", data=data)
    (lazy,) = play(spec, ["os-train-0001"], ScriptedPolicy(["Act: bash\n```bash\ntrue\n```"]))
    assert (lazy.exit_reason, lazy.num_rounds, lazy.reward) == ("round_limit", 8, 0.0)
    (mute,) = play(spec, ["os-train-0001"], ScriptedPolicy(["Hello."]))
    assert (mute.exit_reason, mute.valid_rounds) == ("bad_format", 0)


@pytest.mark.parametrize("number", range(3))
def test_our_scripts_solve_our_checks(tmp_path: Path, number: int) -> None:
    needs_box()
    checked = {"file": f"checking/{number}.sh"}
    task = {"description": "Make a tool.", "evaluation": {"check": checked}}
    solved = {**task, "evaluation": {"check": checked, "example": {"file": f"example/{number}.sh"}}}
    spec = load_environment("os", data=write_tasks(tmp_path, [task, solved]))
    assert play(spec, ["os-train-0001"], OraclePolicy())[0].reward == 1.0
    assert final(tmp_path, 0, "finish")[0] == 0.0


# Real data


def test_published_wording(shared: Path) -> None:
    spec = load_environment(
        "os", prompt="published", agentinstruct=str(shared / "data/agentinstruct")
    )
    wording = spec.wording()
    assert [turn.role for turn in wording.opening] == ["user", "assistant"] * 3
    assert not any(turn.trained for turn in wording.opening)
    text = (shared / "data/agentinstruct/os.jsonl").read_text("utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    cut = 0
    for row in rows:
        users = [turn["value"] for turn in row["conversations"][6:] if turn["from"] == "human"]
        for index, text in enumerate(users):
            before, _, after = wording.pieces["feedback" if index else "first"].partition(
                "{observation}"
            )
            assert text.startswith(before)
            assert text.endswith(after)
            cut += index > 0 and text.endswith(wording.pieces["truncated"])
    assert cut
    assert "\n" in wording.pieces["first"]


def test_real_tasks_are_read(shared: Path) -> None:
    world = OperatingSystemEnvironment(shared / "data/os_interaction")
    sizes = [len(set(world.task_ids(split))) for split in ("train", "dev", "test")]
    assert sizes == [1000, 26, 144]


def test_real_tasks_validate(shared: Path) -> None:
    needs_box()
    spec = load_environment("os", data=shared / "data/os_interaction")
    found = validate(spec, num_tasks=4)
    assert found.ok, found
    # Users, rights, sudo and packages. The solution of the first two needs a terminal that
    # AgentBench itself does not give to their init script.
    tasks = [name for name in spec.task_ids("test") if name.startswith("os-test-6-")]
    failed = {t.task_id for t in play(spec, tasks, OraclePolicy()) if t.reward < 1}
    assert failed == {"os-test-6-new-000", "os-test-6-new-001"}


@pytest.mark.slow
def test_gold_replay(shared: Path) -> None:
    needs_box()
    import sys

    sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))
    from os_replay import replay_split

    data = str(shared / "data/os_interaction")
    for split, least in (("train", 995), ("test", 126)):
        played = replay_split(data, split, workers=2)
        assert sum(each.score == 1.0 for each in played) >= least, played
