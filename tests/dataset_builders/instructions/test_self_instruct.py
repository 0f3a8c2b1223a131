"""Self-Instruct: nothing that a model says of its tasks is believed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.environments import load_environment
from dataset_builders.errors import ConfigError
from dataset_builders.instructions.database import DatabaseTasks
from dataset_builders.instructions.guard import EvaluationGuard
from dataset_builders.instructions.journal import Journal
from dataset_builders.instructions.proposal_filter import SelfInstructSettings
from dataset_builders.instructions.run_io import Writer
from dataset_builders.instructions.self_instruct import run_self_instruct
from dataset_builders.instructions.task_kinds import shipped_seeds
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from tests.support.endpoint import Messages
from tests.support.served import Serve

pytest.importorskip("rapidfuzz", reason="pip install 'agenttuning-plugin[collect]'")

ROOT = Path(__file__).resolve().parents[3]
KIND = DatabaseTasks()
TABLE = "### Table ships\n```csv\nship,crew\nAurora,31\nBison,40\n```"


def proposal(task: str, sql: str, answer: str = "", check: str = "") -> str:
    parts = ["### Task", task, TABLE, "### Solution", f"```sql\n{sql}\n```"]
    parts += ["### Answer", answer] if answer else []
    parts += ["### Check", f"```sql\n{check}\n```"] if check else []
    return "\n".join(parts)


MAXIMUM = proposal(
    "Which ship sails with the largest crew?",
    "SELECT ship FROM ships ORDER BY crew DESC LIMIT 1",
    '["Bison"]',
)
RENAME = proposal(
    "Rename the Aurora to Dawn.",
    "UPDATE ships SET ship = 'Dawn' WHERE ship = 'Aurora'",
    check="SELECT COUNT(*) FROM ships WHERE ship = 'Dawn'",
)
ADD = proposal(
    "Add the Ceres, 27 sailors.",
    "INSERT INTO ships VALUES ('Ceres', 27)",
    check="SELECT COUNT(*) = 3 FROM ships",
)
BAD = [
    ("malformed", "### Task\nDo something."),
    (
        "similar_to_earlier",
        proposal("Which ship sails with the largest crew now?", "SELECT 1", "[1]"),
    ),
    (
        "similar_to_evaluation",
        proposal(
            "Count the sailors of both ships together.", "SELECT SUM(crew) FROM ships", "[71]"
        ),
    ),
    (
        "answer_differs",
        proposal("What is the smallest number of sailors?", "SELECT MIN(crew) FROM ships", "[40]"),
    ),
    (
        "solution_fails",
        proposal("Who commands each vessel here?", "SELECT captain FROM ships", '["Ann"]'),
    ),
    (
        "check_passes_before",
        proposal("Set sail again at dawn tomorrow.", "UPDATE ships SET crew = 1", check="SELECT 1"),
    ),
    (
        "check_fails",
        proposal(
            "Remove whoever has too few hands.",
            "DELETE FROM ships WHERE crew > 35",
            check="SELECT COUNT(*) = 0 FROM ships",
        ),
    ),
    (
        "check_fails",
        proposal("Sink everything afloat at once.", "DELETE FROM ships", check="DROP TABLE ships"),
    ),
    ("idle_passes", proposal("Is everything here finished already?", "SELECT 'done'", '["done"]')),
    (
        "solution_fails",
        proposal(
            "Hire a surprising number of hands.",
            "INSERT INTO ships VALUES ('Ceres', random())",
            check="SELECT COUNT(*) = 3 FROM ships",
        ),
    ),
]
GUARD = EvaluationGuard(["Count sailors of both ships together."])
SETTINGS = SelfInstructSettings(num_tasks=3, max_requests=10, concurrency=1)


def make(writer: Writer, settings: SelfInstructSettings, out: Path) -> dict[str, Any]:
    return asyncio.run(run_self_instruct(writer, KIND, shipped_seeds(KIND), GUARD, settings, out))


def test_every_reason_is_counted_and_the_kept_can_be_played(serve: Serve, tmp_path: Path) -> None:
    texts = ["Sorry, no idea.", MAXIMUM + "\n\n" + "\n\n".join(text for _, text in BAD), RENAME]
    replies = iter(texts)
    writer, endpoint = serve(lambda messages: next(replies, ADD + "\n\n" + MAXIMUM))
    report = make(writer, SETTINGS, tmp_path)
    expected: dict[str, int] = {"kept": 3, "beyond_num_tasks": 1}
    for reason, _ in BAD:
        expected[reason] = expected.get(reason, 0) + 1
    assert report["proposals"] == expected
    assert (report["requests"], report["unusable"], report["stopped"]) == (
        4,
        {"no_task": 1},
        "enough",
    )
    tasks = load_environment("database", data=str(tmp_path / "tasks"))
    played = play(tasks, tasks.task_ids("train"), OraclePolicy())
    assert [each.reward for each in played] == [1.0] * 3
    lines = (tmp_path / "tasks/pairs.jsonl").read_text("utf-8").splitlines()
    kinds = [json.loads(line)["sql"].split()[0] for line in lines]
    assert kinds == ["SELECT", "UPDATE", "INSERT"]
    # What was made is shown to the next: a quarter of four examples.
    shown = endpoint.requests[-1]["messages"][-1]["content"]
    assert "Rename the Aurora" in shown or "largest crew" in shown


def test_examples_are_changes_and_questions_by_halves(serve: Serve, tmp_path: Path) -> None:
    writer, endpoint = serve(lambda messages: "")
    make(writer, replace(SETTINGS, max_requests=3), tmp_path)
    for request in endpoint.requests:
        examples = request["messages"][-1]["content"].partition("Examples:")[2]
        assert examples.count("### Check") == examples.count("### Answer") == 2


def test_a_run_is_taken_up_where_it_was(serve: Serve, tmp_path: Path) -> None:
    numbers = count()
    texts = [MAXIMUM, RENAME, ADD]
    writer, endpoint = serve(lambda messages: texts[next(numbers)])
    poor = replace(writer, max_tokens=1)
    assert make(poor, SETTINGS, tmp_path)["stopped"] == "token_limit"
    assert len(endpoint.requests) == 1
    whole = make(writer, SETTINGS, tmp_path)
    assert whole["proposals"] == {"kept": 3}
    assert make(writer, SETTINGS, tmp_path) == whole
    assert len(endpoint.requests) == 3
    with pytest.raises(ConfigError, match="per_request"):
        make(writer, replace(SETTINGS, per_request=5), tmp_path)


def test_the_journal_survives_a_line_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.write("a", "", "Do this.")
    journal.write("b", "idle_passes", "Do that.")
    journal.close()
    whole = path.read_bytes()
    for end in (0, 1, len(whole) // 2 - 20, len(whole) // 2 + 20, len(whole) - 1):
        path.write_bytes(whole[:end])
        journal = Journal(path)
        lines = whole[:end].count(b"\n")
        assert (journal.verdict("a"), journal.verdict("b")) == (
            "" if lines else None,
            "idle_passes" if lines > 1 else None,
        )
        journal.write("b", "idle_passes", "Do that.")
        journal.close()
        assert path.read_bytes() == (whole if lines else whole[whole.index(b"\n") + 1 :])


def word(number: int) -> str:
    return "".join(chr(ord("a") + int(digit)) for digit in f"{number:03d}") * 3


@pytest.mark.slow
def test_killed_at_any_moment_nothing_is_paid_twice(serve: Serve, tmp_path: Path) -> None:
    numbers = count()

    def reply(messages: Messages) -> str:
        name = word(next(numbers))
        return proposal(
            f"{name} {name}x {name}y.",
            f"INSERT INTO ships VALUES ('{name}', 1)",
            check="SELECT COUNT(*) = 3 FROM ships",
        )

    writer, endpoint = serve(reply)
    endpoint.latency = 0.02
    command = [
        *(sys.executable, "-m", "agenttuning_plugin", "instructions", "self-instruct", "--env"),
        *("database", "--model", "writer", "--base-url", str(writer.endpoint.base_url)),
        *("--out", str(tmp_path), "--num-tasks", "40", "--concurrency", "2", "--json"),
    ]
    kills = 0
    for wait in (3, 6, 12, 20):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(endpoint.requests) < wait and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert report["proposals"] == {"kept": 40}
    assert kills == 4
    # Two requests may have been in flight at each kill.
    assert 40 <= len(endpoint.requests) <= 40 + 2 * kills
    lines = (tmp_path / "tasks/pairs.jsonl").read_text("utf-8").splitlines()
    assert len({json.loads(line)["question"] for line in lines}) == 40
