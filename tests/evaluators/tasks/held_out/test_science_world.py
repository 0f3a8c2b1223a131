"""ScienceWorld's protocol: what needs no Java."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builders.conversation import Message
from dataset_builders.environments.history import count_segments
from dataset_builders.errors import ConfigError, DataError, SourceNotFoundError
from evaluators.tasks.agent_task import answer_turns
from evaluators.tasks.held_out import load_held_out, science_world
from evaluators.tasks.held_out.science_world import actions, demonstrations, selection, simulator
from evaluators.tasks.held_out.science_world.dialogue import ScienceWorldDialogue, trim_old_turns
from evaluators.tasks.held_out.science_world.environment import ScienceWorldEnvironment
from evaluators.tasks.held_out.science_world.evaluator import fit_context
from evaluators.tasks.registry import SuiteSettings

VALID = ("open freezer", "close door to hallway", "focus on orange", "focus on ghost", "wait")


def test_270_episodes_each_beginning_covers_the_tasks_evenly() -> None:
    ids = selection.task_ids()
    assert len(ids) == len(set(ids)) == 270
    tasks = [selection.task_and_variation(each)[0] for each in ids]
    assert set(tasks[:30]) == set(selection.TASKS) == set(tasks[30:60]) | {"identify-life-stages-2"}
    assert tasks.count("inclined-plane-friction-named-surfaces") == 9
    assert tasks.count("power-component") == 5


def test_limits_are_agent_tunings() -> None:
    """`eval.py`: steps of the simulator, twice as many turns, and its room for the prompt."""
    assert (simulator.STEP_LIMIT, simulator.SIMPLIFICATION) == (100, "easy")
    assert ScienceWorldDialogue.round_limit == 2 * simulator.STEP_LIMIT
    assert ScienceWorldDialogue.max_new_tokens == 256
    assert ScienceWorldEnvironment().prompt_segments == 4096 - 60
    assert (actions.MAX_FAILURES, actions.LOOP_LENGTH) == (10, 5)


def test_an_unknown_task_or_split_is_one_line() -> None:
    spec = load_held_out("science_world")
    with pytest.raises(ConfigError, match="test only"):
        spec.task_ids("train")
    with pytest.raises(ConfigError, match="unknown"):
        selection.task_and_variation("science_world-test-boil-1")
    with pytest.raises(ConfigError, match="prompt_segments"):
        load_held_out("science_world", prompt_segments=0).task_ids("test")


def test_possible_actions_lack_doors_rooms_and_what_is_not_in_sight() -> None:
    possible = actions.possible_actions(VALID, "a freezer", "An Orange", ["look around"])
    assert "close door to hallway" not in possible
    assert "focus on ghost" not in possible
    assert {"open freezer", "focus on orange", "open door to kitchen"} <= possible


def test_only_a_first_look_around_is_taken_out_of_what_is_possible() -> None:
    """The log's other entries hold observations too, and so are nobody's action."""
    log = ["look around", "(wait, a)", "(wait, b)"]
    valid = ("look around", "wait")
    assert "look around" not in actions.possible_actions(valid, "", "", log)
    assert {*valid} <= actions.possible_actions(valid, "", "", [*log, "(wait, c)"])


def test_a_near_action_shares_most_words_and_is_the_shortest() -> None:
    possible = {"open freezer", "open freezer door", "pick up red cup", "go to greenhouse"}
    assert actions.near_action("go to green house", possible) == "go to greenhouse"
    assert actions.near_action("please open the freezer", possible) == "open freezer"
    assert actions.near_action("take red cup", possible) == "pick up red cup"
    assert actions.near_action("<|im_end|>\ud800!", possible) == "imend"


@given(st.text(), st.sets(st.text("abc ", min_size=1), max_size=5))
def test_any_turn_becomes_an_action_that_the_simulator_can_be_sent(
    turn: str, possible: set[str]
) -> None:
    taken = actions.near_action(turn, possible)
    assert taken in possible or taken.isascii()


def test_failures_and_loops_are_agent_tunings() -> None:
    assert actions.failed("No known action matches that input.")
    assert actions.failed("In it, you see: nothing")
    assert not actions.failed("You open it.")
    assert actions.loops(["x", "a", "b", "a", "b", "a"])
    assert not actions.loops(["a"] * 6)
    assert not actions.loops(["a", "b", "a", "b"])


def _dialogue(demonstrated: int, played: int) -> list[Message]:
    turns = [Message("user", "rules"), Message("assistant", "Ok.")]
    for number in range(demonstrated):
        turns += [Message("user", f"demo {number}"), Message("assistant", f"gold {number}")]
    for number in range(played):
        turns += [Message("user", f"seen {number}"), Message("assistant", f"did {number}", True)]
    return [*turns, Message("user", f"seen {played}")]


@given(st.integers(0, 6), st.integers(0, 6), st.integers(1, 60))
def test_what_is_shown_fits_or_cannot_be_less(demos: int, played: int, limit: int) -> None:
    dialogue = _dialogue(demos, played)
    shown = trim_old_turns(dialogue, limit)
    texts = [message.content for message in shown]
    assert [message.role for message in shown] == ["user", "assistant"] * (len(shown) // 2) + [
        "user"
    ]
    assert texts[:2] == ["rules", "Ok."]
    assert texts[-1] == f"seen {played}"
    assert "seen 0" in texts
    fits = sum(map(count_segments, texts)) <= limit
    assert fits or len(shown) <= 5
    if sum(count_segments(message.content) for message in dialogue) <= limit:
        assert list(shown) == dialogue


def test_the_demonstration_goes_first_and_keeps_its_task_longest() -> None:
    texts = [message.content for message in trim_old_turns(_dialogue(4, 1), 22)]
    assert texts[2:4] == ["demo 0", "gold 0"]
    assert "gold 3" in texts
    assert "gold 1" not in texts


def test_a_small_context_is_shown_less_and_none_only_the_rest() -> None:
    class Short:
        """Has room for 30 segments."""

        def chat(self, dialogues: Any, decoding: Any) -> list[str | None]:
            del decoding
            sizes = [sum(count_segments(turn.content) for turn in each) for each in dialogues]
            return ["Action: wait" if size <= 30 else None for size in sizes]

    long, short = _dialogue(20, 5), _dialogue(0, 1)
    hopeless = [*short[:-1], Message("user", "a word " * 40)]
    answer = fit_context(answer_turns(Short()))  # type: ignore[arg-type]
    assert answer([long, hopeless, short], 9, [""] * 3) == ["Action: wait", None, "Action: wait"]


def test_turns_are_thoughts_or_actions() -> None:
    dialogue = ScienceWorldDialogue(ScienceWorldEnvironment(), ScienceWorldDialogue.own_prompt())
    assert dialogue.parse("Think: a\nAction: b") == "Think: a\nAction: b"
    assert dialogue.parse(" Action: open door \n") == "open door"
    assert dialogue.parse("") == ""


def test_published_demonstrations_are_read_and_named(tmp_path: Path) -> None:
    path = tmp_path / "prompt.json"
    path.write_text(json.dumps({"0": ["task", "Action: look", "ok", "Action: x"], "1": ["odd"]}))
    read = demonstrations.published(str(path), "boil")
    assert [turn.role for turn in read] == ["user", "assistant"] * 2
    assert not read[1].trained
    assert demonstrations.label(str(path)).startswith("prompt.json:")
    for task in (selection.TASKS[1], selection.TASKS[2]):
        with pytest.raises(DataError, match=r"prompt\.json: [12]: found"):
            demonstrations.published(str(path), task)
    with pytest.raises(SourceNotFoundError, match="not found"):
        demonstrations.label(str(tmp_path / "absent.json"))


def test_without_java_one_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("scienceworld")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceNotFoundError, match="apt-get install default-jre-headless"):
        science_world.make("science_world", SuiteSettings())
