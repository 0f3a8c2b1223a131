"""ScienceWorld's own simulator, played through the dialogue and the evaluator."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataset_builders.collection.rollout import ScriptedPolicy, play
from dataset_builders.environments.isolated import IsolatedDialogue
from dataset_builders.errors import EnvironmentFailureError
from evaluators.base import Evaluation, Subject
from evaluators.held_out import load_held_out, science_world
from evaluators.held_out.science_world import demonstrations, selection
from evaluators.held_out.science_world.evaluator import FittingPolicy
from evaluators.held_out.science_world.simulator import Simulator
from evaluators.suites import SuiteSettings

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
    assert tuple(simulator.task_names()) == selection.TASKS
    for task in selection.TASKS:
        first, number = selection.TEST_VARIATIONS[task]
        assert simulator.test_variations(task) == list(range(first, first + number)), task


def test_the_oracle_through_the_evaluator_scores_one_and_is_a_mean_over_tasks() -> None:
    evaluator = science_world.make("science_world", SuiteSettings(oracle=True, batch_size=1))
    tasks = ("lifespan", "find-non-living", "use-thermometer")
    chosen = [item for item in evaluator.items()[:30] if any(task in item for task in tasks)]
    records = []
    evaluator.measure(Subject(None, None), chosen, records.append)
    assert [record["error"] for record in records] == [""] * len(chosen)
    assert all(record["scores"]["reward"] == 1.0 for record in records)
    assert len({record["group"] for record in records}) == len(chosen) == 5
    assert evaluator.metrics(records)["reward"].value == 1.0
    assert evaluator.macro


def test_hostile_turns_are_played_and_stop_by_the_rules(cache: Path) -> None:
    turns = ["", "\ud800<|im_end|>\x00", "Think:", "Action: " + "go " * 4000, "Action: eat kitchen"]
    (end,) = play(load_held_out("science_world"), [LIFESPAN], ScriptedPolicy(turns), batch_size=1)
    assert end.error == ""
    assert end.exit_reason in {"repeated_failures", "completed", "round_limit"}
    assert 0 <= end.reward < 1
    assert end.valid_rounds < end.num_rounds
    assert "lifespan" in "".join(path.name for path in cache.glob("demonstration-*.json"))


def test_two_turns_in_turn_end_as_a_loop() -> None:
    policy = ScriptedPolicy(["Think: a", "Think: b"])
    (end,) = play(load_held_out("science_world"), [LIFESPAN], policy, batch_size=1)
    assert (end.exit_reason, end.num_rounds, end.reward) == ("loop", 5, 0.0)


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
    (java,) = _children(dialogue.process_id)
    os.kill(java, signal.SIGKILL)
    with pytest.raises(EnvironmentFailureError, match="Java failed"):
        dialogue.step("Action: look around")
    dialogue.reset(options={"task_id": LIFESPAN})
    (java,) = [pid for pid in _children(dialogue.process_id) if _runs(pid)]
    dialogue.close()
    deadline = time.monotonic() + 10
    while _runs(java) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(java)


def test_a_small_context_is_played_with_less_of_the_demonstration() -> None:
    class Short:
        """Takes no more than 1,500 characters."""

        def chat(self, dialogues: list[list[object]], decoding: object) -> list[str | None]:
            del decoding
            sizes = [sum(len(m.content) for m in dialogue) for dialogue in dialogues]  # type: ignore[attr-defined]
            return ["Action: wait" if size <= 1500 else None for size in sizes]

    policy = FittingPolicy(Short())  # type: ignore[arg-type]
    (end,) = play(load_held_out("science_world"), [LIFESPAN], policy, batch_size=1)
    assert end.num_rounds > 5
    assert end.exit_reason != "context_full"


def _children(pid: int | None) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_panel_calls_it(tiny_model_dir: Path) -> None:
    transformers = pytest.importorskip("transformers")
    subject = Subject(
        transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir),
        transformers.AutoTokenizer.from_pretrained(tiny_model_dir),
    )
    settings = SuiteSettings(max_new_tokens=4)
    evaluator = science_world.make("science_world", settings)
    evaluation: Evaluation = evaluator.evaluate(subject, limit=1)
    (record,) = evaluation.records
    assert evaluation.num_errors == 0
    assert record["group"] == "boil"
    assert record["rounds"] > 0
    assert evaluation.primary in evaluation.metrics
