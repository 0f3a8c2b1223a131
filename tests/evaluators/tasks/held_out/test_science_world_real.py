"""ScienceWorld's own simulator, played through the dialogue and the evaluator."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.environments.isolated import IsolatedDialogue
from dataset_builders.errors import EnvironmentFailureError
from evaluators.evaluator import EvalResult, EvalTarget
from evaluators.runner import run_evaluator
from evaluators.tasks.held_out import load_held_out, science_world
from evaluators.tasks.held_out.science_world import demonstrations, selection
from evaluators.tasks.held_out.science_world.dialogue import ScienceWorldDialogue
from evaluators.tasks.held_out.science_world.simulator import Simulator
from evaluators.tasks.registry import SuiteSettings

pytest.importorskip("scienceworld", reason="scienceworld is not installed")
if shutil.which("java") is None:
    pytest.skip("no Java: apt-get install default-jre-headless", allow_module_level=True)

LIFESPAN = "science_world-test-lifespan-longest-lived-119"


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    program = Simulator()
    yield program
    program.close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".cache/agenttuning/environments/science_world"


def test_the_written_down_test_variations_are_the_simulators(simulator: Simulator) -> None:
    package = simulator._env
    assert tuple(map(str, package.get_task_names())) == selection.TASKS
    for task in selection.TASKS:
        first, number = selection.TEST_VARIATIONS[task]
        simulator.begin(task, 0)
        assert list(package.get_variations_test()) == list(range(first, first + number)), task


def test_the_oracle_through_the_evaluator_scores_one_and_is_a_mean_over_tasks() -> None:
    evaluator = science_world.make("science_world", SuiteSettings(oracle=True, batch_size=1))
    tasks = ("lifespan", "find-non-living")
    chosen = [item for item in evaluator.items()[:30] if any(task in item for task in tasks)]
    records = []
    evaluator.measure(EvalTarget(None, None), chosen, records.append)
    assert [record["error"] for record in records] == [""] * len(chosen)
    assert all(record["scores"]["reward"] == 1.0 for record in records)
    assert len({record["group"] for record in records}) == len(chosen) == 4
    assert evaluator.metrics(records)["reward"].value == 1.0
    assert evaluator.macro


def _dialogue(simulator: Simulator) -> ScienceWorldDialogue:
    """In this process, with a program that runs."""
    dialogue = load_held_out("science_world").make()
    assert isinstance(dialogue, ScienceWorldDialogue)
    dialogue.env._simulator = simulator
    dialogue.reset(options={"task_id": LIFESPAN})
    return dialogue


def _play(simulator: Simulator, turns: list[str]) -> tuple[int, float, dict[str, Any]]:
    """Say turns, again and again, until the end."""
    dialogue = _dialogue(simulator)
    for number, turn in enumerate(cycle(turns), 1):
        _, reward, over, truncated, info = dialogue.step(turn)
        if over or truncated:
            return number, reward, info
    raise AssertionError("unreachable")


def test_hostile_turns_are_taken_as_actions(simulator: Simulator) -> None:
    turns = ["", "\ud800<|im_end|>\x00", "Action: " + "go " * 4000, "Action: eat kitchen"]
    dialogue = _dialogue(simulator)
    for turn in turns:
        observation, _, over, truncated, info = dialogue.step(turn)
        assert observation
        assert not over | truncated | info["valid_action"] | info["success"]


def test_two_turns_in_turn_end_as_a_loop(simulator: Simulator) -> None:
    rounds, reward, info = _play(simulator, ["Think: a", "Think: b"])
    assert (rounds, reward, info["exit_reason"]) == (5, 0.0, "loop")


def test_ten_failures_end_it_with_the_score_before_the_last(simulator: Simulator) -> None:
    # Turns that share no word with any action are sent as they are; thoughts break the loop.
    rounds, reward, info = _play(simulator, ["zzz", "Think: a", "zzzz", "Think: b"])
    assert (rounds, reward, info["exit_reason"]) == (19, 0.0, "repeated_failures")
    assert not info["valid_action"]


def test_a_demonstration_is_made_once_and_shown(simulator: Simulator, cache: Path) -> None:
    steps = demonstrations.solved(simulator, "lifespan-longest-lived")
    assert steps[0][0].count("\n") == 1
    assert len(steps) > 3
    (path,) = cache.glob("*.json")
    written = path.stat().st_mtime_ns
    assert demonstrations.solved(simulator, "lifespan-longest-lived") == steps
    assert path.stat().st_mtime_ns == written


def test_java_that_dies_ends_one_episode_and_none_survives() -> None:
    dialogue = load_held_out("science_world").make(isolate=True)
    assert isinstance(dialogue, IsolatedDialogue)
    dialogue.reset(options={"task_id": LIFESPAN})
    opening = dialogue.opening()
    assert opening[-1].role == "assistant"
    assert opening[-1].content.startswith("Action:")
    (java,) = _javas(dialogue.process_id)
    os.kill(java, signal.SIGKILL)
    with pytest.raises(EnvironmentFailureError, match="Java failed"):
        dialogue.step("Action: look around")
    dialogue.reset(options={"task_id": LIFESPAN})
    (java,) = [pid for pid in _javas(dialogue.process_id) if _runs(pid)]
    dialogue.close()
    deadline = time.monotonic() + 10
    while _runs(java) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(java)


def _javas(pid: int | None) -> list[int]:
    """Children of a process that are Java: another one guards them."""
    children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [each for each in children if Path(f"/proc/{each}/comm").read_text() == "java\n"]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_the_panel_calls_it(tiny_model_dir: Path) -> None:
    transformers = pytest.importorskip("transformers")
    subject = EvalTarget(
        transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir),
        transformers.AutoTokenizer.from_pretrained(tiny_model_dir),
    )
    settings = SuiteSettings(max_new_tokens=4)
    evaluator = science_world.make("science_world", settings)
    evaluation: EvalResult = run_evaluator(evaluator, subject, limit=1)
    (record,) = evaluation.records
    assert evaluation.num_errors == 0
    assert record["group"] == "boil"
    assert record["rounds"] > 0
    assert evaluation.primary in evaluation.metrics
