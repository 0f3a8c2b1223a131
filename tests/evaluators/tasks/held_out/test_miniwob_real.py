"""MiniWoB++ in a real Chromium, through the dialogue and the evaluator."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.environments.isolated import IsolatedDialogue
from dataset_builders.errors import EnvironmentFailureError
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy, ScriptedPolicy
from evaluators.evaluator import EvalTarget
from evaluators.tasks.held_out import load_held_out, miniwob
from evaluators.tasks.held_out.miniwob import browser
from evaluators.tasks.held_out.miniwob.oracles import SCRIPTS
from evaluators.tasks.held_out.miniwob.tasks import task_and_seed, task_ids
from evaluators.tasks.registry import SuiteSettings

pytest.importorskip("miniwob", reason="miniwob is not installed")
if browser.missing():
    pytest.skip(browser.missing(), allow_module_level=True)

ENTER = "miniwob-test-enter-text-0"
SOLVED = [each for each in task_ids() if task_and_seed(each)[0] in SCRIPTS]


def _oracle(items: list[str]) -> list[dict[str, Any]]:
    evaluator = miniwob.make("miniwob", SuiteSettings(oracle=True, batch_size=1))
    records: list[dict[str, Any]] = []
    evaluator.measure(EvalTarget(None, None), items, records.append)
    return records


def test_the_oracle_through_the_evaluator_solves_a_page_of_every_scripted_task() -> None:
    records = _oracle(SOLVED[: len(SCRIPTS)])
    assert {record["group"] for record in records} == set(SCRIPTS)
    failures = [r["item"] for r in records if r["error"] or r["scores"]["success"] != 1]
    assert not failures


@pytest.mark.slow
def test_the_oracle_solves_every_page_of_every_scripted_task() -> None:
    failures = [r["item"] for r in _oracle(SOLVED) if r["error"] or r["scores"]["success"] != 1]
    assert not failures


def test_a_task_without_a_script_is_told_and_costs_no_other() -> None:
    spec = load_held_out("miniwob")
    ends = play(
        spec, ["miniwob-test-terminal-0", "miniwob-test-click-test-0"], OraclePolicy(), batch_size=1
    )
    assert "no oracle for terminal" in ends[0].error
    assert ends[1].reward == 1


def test_hostile_turns_are_answered_and_three_rewordings_end_it() -> None:
    turns = [
        "Action: clickxpath //*[",
        "Action: click 999999",
        "Action: clickoption //div",
        "Action: type \ud800\ue009w\U0001f600" + "x" * 600,
        "Action: clickxpath //nothing",
        "Action: movemouse //head/title",
        "Action: clickid nothing",
        *["", "<|im_end|>" * 20, "Action: fly", "no"],
    ]
    (end,) = play(load_held_out("miniwob"), [ENTER], ScriptedPolicy(turns), batch_size=1)
    assert end.error == ""
    assert (end.exit_reason, end.reward) == ("bad_format", 0.0)
    assert end.num_rounds == len(turns)
    seen = [turn.content for turn in end.messages if turn.role == "user"]
    assert sum("could not be done" in text for text in seen) >= 4
    assert sum("That is no action" in text for text in seen) == 3


def test_a_page_as_html_is_played_with_agent_tunings_actions() -> None:
    dialogue = load_held_out("miniwob", observation="html").make()
    try:
        page, info = dialogue.reset(options={"task_id": ENTER})
        assert 'id="subbtn"' in page
        assert "clickxpath" in dialogue.opening()[0].content
        text = info["instruction"].split('"')[1]
        dialogue.step('Action: clickxpath //input[@id="tt"]')
        dialogue.step(f'Action: type "{text}"')
        _, reward, over, _, info = dialogue.step("Action: clickxpath //button")
        assert (reward, over, info["exit_reason"]) == (1.0, True, "completed")
    finally:
        dialogue.env._browser.close()  # type: ignore[attr-defined]


def test_a_browser_that_dies_ends_one_episode_and_none_survives() -> None:
    dialogue = load_held_out("miniwob").make(isolate=True)
    assert isinstance(dialogue, IsolatedDialogue)
    dialogue.reset(options={"task_id": ENTER})
    assert dialogue.process_id is not None
    programs = _descendants(dialogue.process_id)
    os.kill(next(pid for pid in programs if _named(pid, "chromedriver")), signal.SIGKILL)
    with pytest.raises(EnvironmentFailureError, match="browser failed"):
        dialogue.step("Action: click 1")
    assert "Task:" in dialogue.reset(options={"task_id": ENTER})[0]
    programs += _descendants(dialogue.process_id)
    os.kill(dialogue.process_id, signal.SIGKILL)
    dialogue.close()
    assert len(programs) > 6
    _wait_for_the_end(programs)


def _descendants(pid: int) -> list[int]:
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found


def _named(pid: int, name: str) -> bool:
    return name in Path(f"/proc/{pid}/cmdline").read_text().partition("\0")[0]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_for_the_end(programs: list[int]) -> None:
    deadline = time.monotonic() + 15
    while any(map(_runs, programs)) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [(pid, Path(f"/proc/{pid}/cmdline").read_text()[:80]) for pid in filter(_runs, programs)]
    assert not left
