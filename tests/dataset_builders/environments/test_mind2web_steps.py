"""Mind2Web: how a turn is read and scored, and which elements take part."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.environments import load_environment
from dataset_builders.environments.mind2web.environment import Mind2WebEnvironment
from dataset_builders.environments.mind2web.scoring import (
    operation_f1,
    parse_choice,
    parse_operation,
    reference_operation,
)
from dataset_builders.errors import SourceNotFoundError
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy, ScriptedPolicy
from dataset_builders.storage import DATA_VARIABLE
from tests.dataset_builders.environments.test_mind2web import begin, step_record, store


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv(DATA_VARIABLE, raising=False)


def replay(answers: list[int], queue: list[str]) -> tuple[list[list[str]], str]:
    """AgentBench's loop over candidates: what each round shows, and what is predicted or ""."""
    rounds, predicted = [], ""
    for answer in answers:
        shown, queue = sorted(queue[:5], key=int), queue[5:]
        rounds.append(shown)
        if 0 < answer <= len(shown):
            predicted = shown[answer - 1]
            queue.append(predicted)
        if len(queue) <= 1:
            break
    return rounds, predicted if queue else ""


@settings(max_examples=60, deadline=None)
@given(
    num=st.integers(2, 10),
    answers=st.lists(st.integers(0, 5), min_size=3, max_size=3),
    place=st.integers(0, 9),
)
def test_rounds_are_agentbenchs(
    tmp_path_factory: pytest.TempPathFactory, num: int, answers: list[int], place: int
) -> None:
    positive = 1 + place % num
    record = step_record([positive], [n for n in range(1, num + 1) if n != positive])
    dialogue = load_environment(
        "mind2web", data=store(tmp_path_factory.mktemp("m2w"), record).data
    ).make()
    _, info = dialogue.reset(options={"task_id": "mind2web-test-note_uid"})
    queue = [str(positive), *(str(n) for n in range(1, num + 1) if n != positive)]
    random.Random("agenttuning/mind2web-test-note_uid").shuffle(queue)
    rounds, expected = replay(answers, queue)
    over = False
    for answer, shown in zip(answers, rounds, strict=False):
        assert not over
        assert info["choices"] == [f"<a id={i}>link {n}</a>" for i, n in enumerate(shown)]
        letter = "ABCDEF"[answer]
        _, reward, over, truncated, info = dialogue.step(f"Answer: {letter}.\nAction: CLICK")
        assert info["valid_action"] == (answer <= len(shown))
        assert not truncated
    assert over
    assert reward == (expected == str(positive))
    assert info["exit_reason"] == ("chosen" if expected else "none_chosen")


@pytest.mark.parametrize(
    ("turn", "choice", "operation"),
    [
        ("Thought: x\nAnswer: C.\nAction: TYPE\nValue: blue shoes", "C", "TYPE blue shoes"),
        ("Answer: B.\nAction: CLICK", "B", "CLICK "),
        ("Answer: A. None of the above", "A", " "),
        ("Answer: B. <a id=0> Go </a>\nAction: SELECT\nValue: 2\nValue: 3", "B", "SELECT 2"),
        ("Answer: Back\nAction: SET\nValue: $5", "B", " $5"),
        ("Answer:B\nAction:CLICK", "", " "),
        ("answer: b", "", " "),
        ("Answer: G.", "", " "),
        ("", "", " "),
        ("Answer: D\nAction: HOVER, then Action: CLICK", "D", "CLICK "),
    ],
)
def test_turns_are_read_as_agentbench_reads_them(turn: str, choice: str, operation: str) -> None:
    assert (parse_choice(turn), parse_operation(turn)) == (choice, operation)


@pytest.mark.parametrize(
    ("predicted", "reference", "f1"),
    [
        ("CLICK ", "CLICK ", 1),
        ("TYPE blue shoes", "TYPE shoes blue", 1),
        ("TYPE blue blue", "TYPE blue", 1),
        ("TYPE blue", "TYPE blue shoes", 0.8),
        ("CLICK ", "TYPE shoes", 0),
        (" ", "CLICK ", 0),
        (" ", " ", 1),
    ],
)
def test_f1_over_words(predicted: str, reference: str, f1: float) -> None:
    assert operation_f1(predicted, reference) == pytest.approx(f1)


def test_a_click_has_no_value() -> None:
    assert reference_operation("CLICK", "ignored") == "CLICK "
    assert reference_operation("TYPE", "two\nlines") == "TYPE two"


@pytest.mark.parametrize(
    ("turn", "reward", "facts"),
    [
        ("Answer: B.\nAction: TYPE\nValue: blue shoes", 1, (1, 1)),
        ("Answer: B.\nAction: TYPE\nValue: shoes", 0, (1, 0.8)),
        ("Answer: C.\nAction: TYPE\nValue: blue shoes", 0, (0, 1)),
        ("Answer: A.\nAction: TYPE\nValue: blue shoes", 0, (0, 0)),
        ("I do not know.", 0, (0, 0)),
    ],
)
def test_step_success(tmp_path: Path, turn: str, reward: float, facts: tuple[float, float]) -> None:
    environment = store(tmp_path / "d", step_record([1], [2], "TYPE", "blue shoes"))
    dialogue = load_environment("mind2web", data=environment.data).make()
    dialogue.reset(options={"split": "test", "index": 0})
    _, earned, over, _, info = dialogue.step(turn)
    assert (over, earned, info["success"]) == (True, reward, bool(reward))
    assert (info["element_accuracy"], info["operation_f1"]) == pytest.approx(facts)
    assert info["valid_format"] == ("Answer" in turn)


def test_any_right_element_counts(tmp_path: Path) -> None:
    environment = store(tmp_path / "d", step_record([1, 2], [3]))
    (task,) = environment.task_ids("test")
    spec = load_environment("mind2web", data=environment.data)
    for letter, reward in (("B", 1), ("C", 1), ("D", 0)):
        said = ScriptedPolicy([f"Answer: {letter}\nAction: CLICK"])
        assert play(spec, [task], said)[0].reward == reward


def test_only_the_ten_likeliest_take_part(tmp_path: Path) -> None:
    record = step_record([1], list(range(2, 40)))
    order = [str(n) for n in (20, 1, *range(30, 40), 2, 3)]
    environment = store(tmp_path / "d", record, ranks={"note_uid": order})
    begin(environment)
    episode = environment._current()
    seen = {each for each, _ in episode.choices} | set(episode.waiting)
    assert seen == set(order[:10])


def test_a_step_whose_right_element_is_unlikely(tmp_path: Path) -> None:
    """Asked and failed on the test split, as the benchmark counts it; no training task."""
    record = step_record([1], list(range(2, 40)))
    order = [str(n) for n in range(39, 0, -1)]
    environment = store(tmp_path / "d", record, ranks={"note_uid": order})
    store(tmp_path / "d", record, split="train", ranks={"note_uid": order})
    spec = load_environment("mind2web", data=tmp_path / "d")
    ids = spec.task_ids("test")
    (played,) = play(spec, ids, ScriptedPolicy(["Answer: B.\nAction: CLICK"]))
    assert (played.reward, played.exit_reason) == (0, "chosen")
    (solved,) = play(spec, ids, OraclePolicy())
    assert "no candidate is right" in solved.error
    with pytest.raises(SourceNotFoundError, match="no steps of split train"):
        environment.task_ids("train")


def test_without_ranks_training_steps_draw_negatives(tmp_path: Path) -> None:
    record = step_record([7], [n for n in range(1, 40) if n != 7])
    environment = store(tmp_path / "d", record, split="train", ranks=None)
    begin(environment, "train")
    episode = environment._current()
    seen = {each for each, _ in episode.choices} | set(episode.waiting)
    assert len(seen) == 10
    assert "7" in seen
    store(tmp_path / "d", record, ranks=None)
    with pytest.raises(SourceNotFoundError, match=r"no ranks\.json beside the test split"):
        begin(Mind2WebEnvironment(tmp_path / "d"))
