"""Self-Instruct for the os environment: proposals are played in real boxes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from dataset_builders.environments import load_environment
from dataset_builders.instructions.guard import EvaluationGuard
from dataset_builders.instructions.operating_system import OperatingSystemTasks
from dataset_builders.instructions.proposal_filter import SelfInstructSettings
from dataset_builders.instructions.self_instruct import run_self_instruct
from dataset_builders.instructions.task_kinds import shipped_seeds
from dataset_builders.instructions.verification import verify
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from dataset_builders.sandbox import engines
from tests.support.served import Serve

KIND = OperatingSystemTasks()


def proposal(task: str, setup: str, solution: str, check: str) -> str:
    scripts = [f"```bash\n{script}\n```" for script in (setup, solution, check)]
    check = check if check in ("integer", "string", "size") else scripts[2]
    return (
        f"### Task\n{task}\n### Setup\n{scripts[0]}\n### Solution\n{scripts[1]}\n### Check\n{check}"
    )


PROPOSALS = [
    (
        "kept",
        proposal("Create the folder /srv/inbox.", "true", "mkdir /srv/inbox", "[ -d /srv/inbox ]"),
    ),
    (
        "kept",
        proposal(
            "Count the words of /root/poem.",
            "echo red green blue > /root/poem",
            "wc -w < /root/poem",
            "integer",
        ),
    ),
    (
        "malformed",
        proposal("Say hello in some way.", "true", "echo hello", "integer").replace(
            "integer", "by eye"
        ),
    ),
    (
        "solution_fails",
        proposal(
            "Delete every old backup.",
            "touch /root/a.bak",
            "rm /root/*.old",
            "[ ! -e /root/a.bak ]",
        ),
    ),
    (
        "idle_passes",
        proposal("Keep the machine running well.", "true", "uptime >/dev/null", "true"),
    ),
    (
        "idle_passes",
        proposal(
            "Tell how many users are named zoe.",
            "true",
            "grep -c ^zoe: /etc/passwd || true",
            "integer",
        ),
    ),
    (
        "not_deterministic",
        proposal(
            "Pick one port at random, please.",
            "true",
            "echo $RANDOM$RANDOM$RANDOM > /root/port; cat /root/port",
            "[ -s /root/port ]",
        ),
    ),
    (
        "solution_fails",
        proposal(
            "Fetch a page from the web.",
            "true",
            "exec 3<>/dev/tcp/192.0.2.1/80 && touch /root/page",
            "[ -e /root/page ]",
        ),
    ),
]


@pytest.fixture(autouse=True)
def sandbox() -> None:
    if lacking := engines.missing():
        pytest.skip(f"no sandbox: {lacking}")


def test_only_what_proves_sound_in_a_box_is_kept(serve: Serve, tmp_path: Path) -> None:
    writer, _ = serve(lambda messages: "\n\n".join(text for _, text in PROPOSALS))
    settings = SelfInstructSettings(num_tasks=8, max_requests=1)
    report = asyncio.run(
        run_self_instruct(
            writer, KIND, shipped_seeds(KIND), EvaluationGuard([]), settings, tmp_path
        )
    )
    expected: dict[str, int] = {}
    for reason, _ in PROPOSALS:
        expected[reason] = expected.get(reason, 0) + 1
    assert report["proposals"] == expected
    lines = (tmp_path / "journal.jsonl").read_text("utf-8").splitlines()
    played = [reason for reason, _ in PROPOSALS if reason != "malformed"]
    assert [json.loads(line)["reason"] or "kept" for line in lines] == played
    tasks = load_environment("os", data=str(tmp_path / "tasks"))
    solved = play(tasks, tasks.task_ids("train"), OraclePolicy())
    assert [each.reward for each in solved] == [1.0, 1.0]


def test_the_seeds_that_ship_are_sound(tmp_path: Path) -> None:
    KIND.write(tmp_path, shipped_seeds(KIND))
    environment = KIND.environment(tmp_path)
    found = {each: verify(environment, each, KIND.idlers) for each in environment.task_ids("train")}
    assert {each: verdict.reason for each, verdict in found.items()} == dict.fromkeys(found, "")
    assert len(found) == 5
