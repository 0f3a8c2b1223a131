"""Jobs of harbor: trajectories in ATIF with the reward of the verifier, trials that did not end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.errors import ConfigError, DataError
from dataset_builders.readers.building import LoadResult
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import SourceSpec, fingerprint, load_source

pytest.importorskip("atif")

JOB = Path(__file__).resolve().parents[2] / "assets" / "traces" / "harbor-0.25.0"
GOOD = "count-lines__aaaaaaa"


def load(path: Path, **options: Any) -> LoadResult:
    return load_source(resolve_source(SourceSpec(str(path), **options)))


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return Path(shutil.copytree(JOB, tmp_path / "jobs" / "job"))


def test_a_job() -> None:
    found = load(JOB)
    assert found.report.source.startswith("harbor:")
    assert found.report.dropped == {"generation_error": 1, "unfinished": 1}
    assert found.report.samples["generation_error"][0].startswith(
        "count-lines__ccccccc: result.json: exception_info: found ApiRateLimitError: made for"
    )
    assert [c.reward for c in found.conversations] == [1.0, 1.0, 0.0, 1.0]
    first, continued = found.conversations[:2]
    assert (first.id, continued.id) == (f"{GOOD}/0", f"{GOOD}/1")
    assert first.where == continued.where == GOOD
    assert (first.source, first.task, first.model) == ("harbor", "shop-tasks", "scripted")
    assert [m.trained for m in first.messages if m.role == "assistant"] == [True, True]
    # The copied summary is context; the turns after it are new.
    assert [m.trained for m in continued.messages if m.role == "assistant"] == [False, True, True]
    assert json.loads(first.tools)[0]["function"]["name"] == "bash"


def test_one_trial_a_job_and_a_folder_of_jobs(job: Path) -> None:
    assert load(job / GOOD).conversations == load(JOB).conversations[:2]
    assert load(job / GOOD).conversations[0].where == GOOD
    assert load(job.parent).conversations[0].where == f"job/{GOOD}"
    assert len(load(job.parent).conversations) == 4


def test_min_reward(job: Path) -> None:
    found = load(job, min_reward=1.0)
    assert [c.reward for c in found.conversations] == [1.0, 1.0, 1.0]
    assert found.report.dropped["reward_below_threshold"] == 1


def test_rewards_in_files_of_the_verifier(job: Path) -> None:
    result = job / GOOD / "result.json"
    value = json.loads(result.read_text())
    result.write_text(json.dumps(value | {"verifier_result": None}))
    verifier = job / GOOD / "verifier"
    (verifier / "reward.txt").write_text(" 0.25\n")
    assert load(job / GOOD).conversations[0].reward == 0.25
    (verifier / "reward.txt").unlink()
    (verifier / "reward.json").write_text('{"reward": 0.5, "speed": 3}')
    assert load(job / GOOD).conversations[0].reward == 0.5
    (verifier / "reward.json").unlink()
    assert load(job / GOOD).conversations[0].reward is None


def test_the_fingerprint_covers_reward_and_trajectory(job: Path) -> None:
    spec = SourceSpec(str(job), "harbor")
    before = fingerprint(spec)
    (job / GOOD / "verifier" / "reward.txt").write_text("0\n")
    between = fingerprint(spec)
    (job / GOOD / "agent" / "trajectory.cont-1.json").unlink()
    assert len({before, between, fingerprint(spec)}) == 3


def edit(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(trial: Path) -> None:
        value = json.loads((trial / name).read_text())
        (trial / name).write_text(json.dumps(value | changes))

    return change


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda trial: (trial / name).write_text(text) and None


def rewards(value: Any) -> Callable[[Path], None]:
    return edit("result.json", verifier_result={"rewards": value})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (write("result.json", '{"trial_name": '), "bad_json 1; .*result.json: not JSON"),
        (write("result.json", "[]"), "bad_trial 2; .*result.json: found list, expected an object"),
        (edit("result.json", finished_at=None), "unfinished 2; .*finished_at: found none"),
        (
            edit("result.json", exception_info={"exception_type": "OutputTokenExceededError"}),
            "cut_turn 2; .*found OutputTokenExceededError",
        ),
        (
            edit("result.json", step_results=[{"exception_info": {"exception_type": "X"}}]),
            "generation_error 2; .*exception_info: found X",
        ),
        (rewards({"a": 1, "b": 0}), "bad_reward 2; .*rewards: found a, b, expected one reward"),
        (rewards({"reward": "1"}), "bad_reward 2; .*rewards.reward: found '1', expected a number"),
        (rewards([1]), r"bad_reward 2; .*rewards: found \[1\], expected an object"),
    ],
)
def test_trials_that_are_dropped(job: Path, change: Callable[[Path], None], reason: str) -> None:
    change(job / GOOD)
    with pytest.raises(DataError, match=rf"can be used: {reason}"):
        load(job / GOOD)


def test_bad_reward_file(job: Path) -> None:
    rewards(None)(job / GOOD)
    (job / GOOD / "verifier" / "reward.txt").write_text("pass\n")
    with pytest.raises(
        DataError, match=r"bad_reward 2; .*reward.txt: found 'pass', expected a num"
    ):
        load(job / GOOD)
    (job / GOOD / "verifier" / "reward.txt").write_text("nan\n")
    with pytest.raises(DataError, match=r"bad_reward 2; .*reward.txt: found nan"):
        load(job / GOOD)


def test_a_truncated_trajectory_is_counted(job: Path) -> None:
    file = job / GOOD / "agent" / "trajectory.json"
    file.write_bytes(file.read_bytes()[:-100])
    found = load(job)
    assert found.report.dropped["bad_json"] == 1
    assert "trajectory.json: not JSON" in found.report.samples["bad_json"][0]
    assert found.conversations[0].id == f"{GOOD}/1"


def test_an_agent_that_writes_no_atif(job: Path) -> None:
    shutil.rmtree(job / GOOD / "agent")
    (job / GOOD / "agent").mkdir()
    found = load(job)
    assert found.report.dropped["no_trajectory"] == 1
    assert "agent/trajectory.json: missing" in found.report.samples["no_trajectory"][0]


def test_every_trial_is_accounted_for() -> None:
    report = load(JOB).report
    assert report.read == report.kept + report.dropped.total() == 6


def test_a_folder_that_is_no_job(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match="found no folder of a trial"):
        load(tmp_path, format="harbor")
