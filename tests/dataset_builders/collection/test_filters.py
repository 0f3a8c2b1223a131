from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builders.collection.filters import (
    FILTERS,
    TrajectoryFilter,
    parse_filters,
    reward_filter,
    thought_of,
    threshold_of,
)
from dataset_builders.conversation import Message, ToolCall
from dataset_builders.endpoints.reply import Reply
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.errors import ConfigError
from dataset_builders.rollouts.episode import Episode, Trajectory
from dataset_builders.sources.loading import SourceSpec, load_source

ACT = "I look.\nAction: Operation\n```sql\nSELECT 1\n```"


def played(
    *turns: str, reward: float = 1.0, exit_reason: str = "answered", invalid: int = 0, cut: int = 0
) -> Trajectory:
    messages = [Message("user", "Work."), Message("assistant", "Ok.")]
    for number, turn in enumerate(turns):
        messages += [Message("user", f"seen {number}"), Message("assistant", turn, trained=True)]
    return Trajectory(
        task_id="database-train-0000",
        environment="database",
        split="train",
        messages=tuple(messages),
        reward=reward,
        exit_reason=exit_reason,
        num_rounds=len(turns),
        valid_rounds=len(turns) - invalid,
        cut_turns=cut,
    )


def test_the_papers_thresholds() -> None:
    assert threshold_of("database") == 1
    assert threshold_of("mind2web") == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("trajectory", "least", "reason"),
    [
        (played(ACT), 1, ""),
        (played(ACT, reward=0.9), 1, "reward_below_threshold"),
        (played(ACT, reward=2 / 3), 2 / 3, ""),
        (played(ACT, reward=0, exit_reason="round_limit"), 1, "round_limit"),
        (played(ACT, reward=0, exit_reason="round_limit"), 0, ""),
        (played(ACT, exit_reason="environment_error"), 0, "environment_error"),
        (played(ACT, exit_reason="cost_limit"), 0, "cost_limit"),
        (played(), 0, "nothing_trained"),
        (played(ACT, " \n"), 1, "empty_turn"),
        (played(ACT + "\ud800"), 1, "lone_surrogate"),
        # Whatever it earned, and without a filter that is named.
        (played(ACT, cut=1), 0, "cut_turns"),
    ],
)
def test_reward_and_what_no_builder_takes(
    trajectory: Trajectory, least: float, reason: str
) -> None:
    sieve = TrajectoryFilter(least, unfinished=["cost_limit"])
    assert sieve.reason(trajectory) == reason
    assert not sieve.counts["played"]
    assert sieve.keeps(trajectory) is (not reason)
    assert +sieve.counts == {"played": 1, reason or "kept": 1}


@pytest.mark.parametrize(
    ("text", "kept", "dropped", "reason"),
    [
        ("max_rounds=2", played(ACT, "b"), played(ACT, "b", "c"), "too_many_rounds"),
        ("min_rounds=2", played(ACT, "b"), played(ACT), "too_few_rounds"),
        ("max_characters=24", played("b" * 10), played("b" * 11), "too_long"),
        ("all_valid_format", played(ACT), played(ACT, invalid=1), "invalid_turns"),
        ("all_valid_format=1", played(ACT, invalid=1), played(ACT, "b", invalid=2), "invalid_tu"),
        ("no_repetition", played("a", "a", "b", "a"), played("b", "a", "a ", "a"), "repetition"),
        ("no_repetition=2", played("a", "b", "a"), played("a", "a"), "repetition"),
        ("has_thought", played(ACT), played(ACT, "Action: Answer"), "no_thought"),
        ("has_thought=50", played(ACT, "Action: x"), played("Act: a", "Act: b", ACT), "no_though"),
        ("no_cut_turns", played(ACT), played(ACT, cut=1), "cut_turns"),
        ("no_cut_turns=1", played(ACT, cut=1), played(ACT, ACT, cut=2), "cut_turns"),
        ("no_refusal", played("I am sure."), played("I'm sorry, but no."), "refusal"),
        ("no_refusal", played("I am unable to find it."), played("I am unable to help"), "refus"),
        ("no_refusal=1", played("I can't help."), played("As an AI", "I cannot assist"), "refusal"),
    ],
)
def test_filters_by_name(text: str, kept: Trajectory, dropped: Trajectory, reason: str) -> None:
    sieve = TrajectoryFilter(1, [text])
    assert sieve.reason(kept) == ""
    assert sieve.reason(dropped).startswith(reason)


def test_every_filter_is_tried_above() -> None:
    (mark,) = test_filters_by_name.pytestmark  # type: ignore[attr-defined]
    assert {case[0].partition("=")[0] for case in mark.args[1]} == set(FILTERS)


def test_a_cut_end_that_the_environment_leaves_out_is_no_fault() -> None:
    class Keeps:
        """As the knowledge graph's dialogue: nothing behind a made-up observation."""

        assistant_message = Dialogue.assistant_message
        observation_messages = Dialogue.observation_messages

        def kept(self, turn: str) -> str:
            return turn.split("Observation:")[0].replace("\\_", "_")

        def step(self, turn: str) -> tuple[str, float, bool, bool, dict[str, bool]]:
            return "seen", 0.0, False, False, {"valid_format": True}

    for text, number in (("Action: a\\_b", 1), ("Action: a\nObservation: made u", 0), ("a ", 1)):
        for cut in (False, True):
            episode = Episode(0, "t", dialogue=cast(Dialogue, Keeps()))
            episode.act(Reply(text, "length" if cut else "stop"))
            assert episode.trajectory("knowledge_graph").cut_turns == number * cut


def test_the_first_filter_that_objects_names_the_reason() -> None:
    sieve = TrajectoryFilter(1, ["max_rounds=1", " has_thought"])
    assert sieve.names == ("no_cut_turns=0", "max_rounds=1", "has_thought=100")
    assert sieve.reason(played("Act: a", "Act: b")) == "too_many_rounds"
    assert sieve.reason(played("Act: a", reward=0)) == "reward_below_threshold"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("judge", "filter 'judge' is unknown; known: all_valid_format, "),
        ("max_rounds", "expected a number, such as max_rounds=10"),
        ("max_rounds=", "found '', expected a whole number"),
        ("max_rounds=-1", "found '-1', expected a whole number"),
        ("max_rounds=ten", "found 'ten'"),
    ],
)
def test_bad_filters_are_refused(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse_filters([text])


@pytest.mark.parametrize("least", [-0.1, 1.1, float("nan")])
def test_bad_thresholds_are_refused(least: float) -> None:
    with pytest.raises(ConfigError, match="expected 0 to 1"):
        reward_filter(least)


@pytest.mark.parametrize(
    ("turn", "thought"),
    [
        (ACT, "I look."),
        ("THOUGHT: I go. \n ACTION: go to desk 1", "I go."),
        ("Think: I list.\n\nAct: bash\n\n```bash\nls\n```", "I list."),
        ("Thought:\nA chair.\n\nAction:\nsearch[chair]", "A chair."),
        ("Thought: It is B.\nAnswer: B.\nAction: CLICK", "It is B."),
        ("ACTION: go to desk 1", ""),
        ("Thought: \nAction: get_relations(x)", ""),
        ("```sql\nSELECT 1\n```", ""),
        ("", ""),
    ],
)
def test_thoughts_of_all_six_formats(turn: str, thought: str) -> None:
    assert thought_of(turn) == thought


def test_thoughts_of_real_turns(shared: Path) -> None:
    """Labelled thoughts are found, and no others; DB's thoughts have no label."""
    loaded = load_source(SourceSpec(str(shared / "data/agentinstruct"), "agentinstruct"))
    for conversation in loaded.conversations:
        for turn in (m.content for m in conversation.messages if m.trained):
            labelled = re.search(r"(?i)^\s*(thought|think):", turn) is not None
            if conversation.task == "db":
                assert bool(thought_of(turn)) == (not turn.startswith("Action: "))
            else:
                assert bool(thought_of(turn)) == labelled


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from(["answered", "round_limit"]))))
def test_every_trajectory_is_counted_once(ends: list[tuple[float, str]]) -> None:
    sieve = TrajectoryFilter(0.5, ["has_thought"])
    kept = [sieve.keeps(played(ACT, reward=reward, exit_reason=end)) for reward, end in ends]
    assert sieve.counts["kept"] == sum(kept) == sum(reward >= 0.5 for reward, _ in ends)
    assert sieve.counts.total() == 2 * sieve.counts["played"] == 2 * len(ends)


def test_calls_are_part_of_a_turn() -> None:
    def calling(*statements: str) -> Trajectory:
        turns = [ToolCall("execute_sql", json.dumps({"query": each})) for each in statements]
        messages = [Message("assistant", "", True, (turn,)) for turn in turns]
        results = [Message("tool", "", tool_call_id="1") for _ in turns]
        pairs = [m for pair in zip(messages, results, strict=True) for m in pair]
        return replace(played("x"), messages=(Message("user", "Go."), *pairs), tools="[]")

    sieve = TrajectoryFilter(1, ["no_repetition", "max_characters=150"])
    assert sieve.reason(calling("SELECT 1", "SELECT 2", "SELECT 3")) == ""
    assert sieve.reason(calling(*["SELECT 1"] * 3)) == "repetition"
    assert sieve.reason(calling("SELECT 1" * 20)) == "too_long"
    assert TrajectoryFilter(1, ["has_thought"]).reason(calling("SELECT 1")) == "no_thought"
