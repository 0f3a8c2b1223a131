"""ALFWorld's real games."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataset_builders.environments import EnvironmentSpec, load_environment
from dataset_builders.environments.alfworld import engine
from dataset_builders.environments.alfworld.dialogue import AlfworldDialogue
from dataset_builders.environments.alfworld.environment import AlfworldEnvironment
from dataset_builders.environments.isolated import IsolatedDialogue
from dataset_builders.errors import EnvironmentFailureError, MissingExtraError
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from dataset_builders.rollouts.validation import validate

pytest.importorskip("textworld", reason="the extra alfworld is not installed")
pytest.importorskip("fast_downward", reason="the extra alfworld is not installed")

TASK = "alfworld-test-pick_and_place_simple-Pencil-None-Shelf-308-trial_T20190908_121952_610012"
TRAIN = "alfworld-train-look_at_obj_in_light-"


@pytest.fixture(scope="module")
def data(shared: Path) -> Path:
    return shared / "data/alfworld"


@pytest.fixture(scope="module")
def played(data: Path) -> Iterator[AlfworldDialogue]:
    """One dialogue for all tests: a game's libraries are never freed."""
    dialogue = AlfworldDialogue(AlfworldEnvironment(data), AlfworldDialogue.own_prompt())
    yield dialogue
    dialogue.close()


def spec(data: Path, **options: object) -> EnvironmentSpec:
    return load_environment("alfworld", data=str(data), **options)


def test_a_game_is_won_by_agentbenchs_rules(
    played: AlfworldDialogue, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = list(sys.argv)
    turn, info = played.reset(options={"task_id": TASK})
    assert sys.argv == arguments
    assert turn.startswith("This is your task. You are in the middle of a room.")
    assert turn.endswith("\nYour task is to: put a pencil in shelf.")
    assert info["instruction"] == "put a pencil in shelf."
    assert info["kind"] == "pick_and_place_simple"
    assert "go to desk 1" in info["admissible_actions"]
    feedback, _, _, _, info = played.step("THOUGHT: A pencil?\n ACTION: Go to the desk 1\n")
    assert feedback == "On the desk 1, you see a desklamp 1, a keychain 1, and a pencil 1."
    assert (info["action"], info["valid_format"]) == ("go to desk 1", True)
    # Without "ACTION:" the words are played, but the format is not kept.
    feedback, _, _, _, info = played.step("take pencil 1 from desk 1")
    assert feedback == "You pick up the pencil 1 from the desk 1."
    assert (info["valid_action"], info["valid_format"]) == (True, False)
    feedback, _, _, _, info = played.step("ACTION: sing")
    assert feedback == "Nothing happens."
    assert (info["valid_action"], info["valid_format"]) == (False, False)
    played.step("ACTION: go to shelf 1")
    _, reward, over, truncated, info = played.step("ACTION: put pencil 1 in/on shelf 1")
    assert (reward, over, truncated) == (1.0, True, False)
    assert (info["exit_reason"], info["success"]) == ("completed", True)
    assert capfd.readouterr().out == ""


def test_three_equal_turns_end_it_once_a_fourth_is_played(played: AlfworldDialogue) -> None:
    played.reset(options={"task_id": TASK})
    for _ in range(3):
        assert not played.step("ACTION: look")[2]
    _, reward, over, truncated, info = played.step("ACTION: look")
    assert (reward, over, truncated) == (0.0, True, False)
    assert info["exit_reason"] == "repetition"


def test_the_third_equal_turn_loses_even_where_it_wins(played: AlfworldDialogue) -> None:
    """Equal words may be mapped to another command each time; AgentBench looks at words."""
    played.reset(options={"task_id": TASK})
    for action in ["go to desk 1", "take pencil 1 from desk 1", "go to shelf 1"]:
        played.step(f"ACTION: {action}")
    put = "ACTION: put pencil 1 in/on shelf 1"
    played._turns[-2:] = [put, put]
    _, reward, over, _, info = played.step(put)
    assert (reward, over, info["success"]) == (0.0, True, False)
    assert (info["exit_reason"], info["score"]) == ("repetition", 0.0)


def test_thirty_five_turns_are_the_limit(played: AlfworldDialogue) -> None:
    played.reset(options={"task_id": TASK})
    for round_ in range(35):
        # A number would be like any command with that number.
        feedback, _, over, truncated, info = played.step(f"ACTION: {'x' * (round_ + 1)}")
        assert (over, truncated) == (False, round_ == 34)
        assert truncated or feedback == "Nothing happens."
    assert info["exit_reason"] == "round_limit"


def test_published_wording_is_that_of_the_rows(shared: Path, data: Path) -> None:
    rows = str(shared / "data/agentinstruct/alfworld.jsonl")
    prompt = load_environment("alfworld", prompt="published", agentinstruct=rows).wording()
    assert [turn.role for turn in prompt.opening] == ["user", "assistant"]
    assert prompt.opening[1].content.startswith("OK. I'll follow your instructions")
    dialogue = AlfworldDialogue(AlfworldEnvironment(data), prompt)
    room = "You are in the middle of a room. {x}\nYour task is to: look."
    assert dialogue.first_turn(room, {}) == f"Here is your task. {room}"
    assert dialogue.feedback("Nothing happens.", {}) == "Nothing happens."


def test_a_demonstration_is_a_solved_training_game_of_the_kind(data: Path) -> None:
    dialogue = spec(data, demonstration=True).make()
    dialogue.reset(options={"task_id": TASK})
    plain = AlfworldDialogue.own_prompt()
    opening = dialogue.opening()
    assert opening[:2] == plain.opening
    first, *turns = opening[2:]
    assert first.content.startswith("Here is how another task was done.\nYou are in the middle")
    assert [turn.role for turn in turns] == ["assistant", "user"] * (len(turns) // 2) + [
        "assistant"
    ]
    assert " in/on " in turns[-1].content
    assert not any(turn.trained for turn in opening)
    assert dialogue.opening() == opening
    assert dialogue.prompt.label.startswith("own+demonstration:")
    dialogue.close()


def test_it_plays_in_a_process_of_its_own(data: Path) -> None:
    environment = spec(data, demonstration=True)
    dialogue = environment.make(isolate=True)
    assert dialogue.prompt.label == environment.make().prompt.label
    assert isinstance(dialogue, IsolatedDialogue)
    task = next(each for each in environment.task_ids("train") if each.startswith(TRAIN))
    try:
        observation, _ = dialogue.reset(options={"task_id": task})
        oracle, over, score = dialogue.oracle(), False, 0.0
        turn = next(oracle)
        while not over:
            observation, score, over, _, info = dialogue.step(turn)
            assert info["valid_format"]
            turn = turn if over else oracle.send(observation)
        assert score == 1.0
    finally:
        dialogue.close()


def test_validate(data: Path) -> None:
    result = validate(spec(data), split="dev", num_tasks=1)
    assert result.ok, result.failures


def test_a_broken_game_is_named(data: Path) -> None:
    from dataset_builders.environments.alfworld.games import Game

    arguments = list(sys.argv)
    with pytest.raises(EnvironmentFailureError, match="cannot load a-b: "):
        engine.GameEngine().start(Game("a-b", "(define", "", "(define"))
    assert sys.argv == arguments


def test_without_the_extra_the_install_line_is_told(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_NEEDS", ("textworld", "no_such_package"))
    with pytest.raises(MissingExtraError, match=r"no_such_package.*agenttuning-plugin\[alfworld\]"):
        engine.GameEngine()
    assert "pip install" in AlfworldEnvironment.missing(data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("oracle", "split", "least"), [("rule", "test", 50), ("search", "test", 48)]
)
def test_oracles_on_agentbenchs_games(data: Path, oracle: str, split: str, least: int) -> None:
    environment = spec(data, oracle=oracle)
    results = play(environment, environment.task_ids(split), OraclePolicy(), batch_size=1)
    assert len(results) == 50
    assert sum(result.reward for result in results) >= least
    assert all(result.valid_rounds == result.num_rounds for result in results)
