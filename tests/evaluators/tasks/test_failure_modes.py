"""Modes of failure: each rule on transcripts that show it, and hardly ever on good ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluators.tasks.failure_modes import MODES, failure_modes, failure_rates


def record(*turns: str, valid: int | None = None, **more: Any) -> dict[str, Any]:
    said = [
        message
        for turn in turns
        for message in (
            {"role": "user", "content": "seen"},
            {"role": "assistant", "content": turn},
        )
    ]
    opening = [{"role": "user", "content": "rules"}, {"role": "assistant", "content": "Sorry?"}]
    rounds = len(turns)
    return {
        "item": "alfworld-test-1",
        "messages": [*opening, *said],
        "rounds": rounds,
        "valid_rounds": rounds if valid is None else valid,
        "exit_reason": "",
        **more,
    }


def go(*places: str) -> list[str]:
    return [f"THOUGHT: I try {n}.\nACTION: go to {place}" for n, place in enumerate(places)]


@pytest.mark.parametrize(
    ("found", "modes"),
    [
        (record(*go("a", "b", "c", "a", "b")), []),
        # Other words around it do not make it another action.
        (record(*go("a", "a", "A")), ["short_term_repetition"]),
        (record(*go("a", "b", "a", "b", "a", "b")), ["long_term_repetition"]),
        (record(*go("x", *"abcabcabc", "y")), ["long_term_repetition"]),
        (record(*go(*"abab", "c", *"ab")), []),
        (record(*go(*"abcdefgh" * 3)), ["long_term_repetition"]),
        (record(*go(*"abcdefghi" * 3)), []),
        (record(*go(*"abcabc")), []),
        (record("what?", exit_reason="bad_format", valid=0), ["invalid_action"]),
        (record(*go("a", "b", "c"), valid=2), []),
        (record(*go("a", "b"), valid=1), ["invalid_action"]),
        (record("I'm sorry, I can't do that.", valid=1), ["refusal"]),
        (record("As an AI language model, no.", valid=1), ["refusal"]),
        (record("I cannot find it, so on.\nACTION: go to desk 1"), []),
        (record(""), []),
        ({"item": "x", "rounds": 0, "valid_rounds": 0, "messages": []}, []),
    ],
)
def test_rules(found: dict[str, Any], modes: list[str]) -> None:
    assert failure_modes(found, "alfworld") == modes


@pytest.mark.parametrize(
    ("found", "modes"),
    [
        # Four calls, two refused: errors of calls, not turns without an action.
        (
            record(*[f"Action: get_relations({n})" for n in "abcd"], valid=2),
            ["function_call_error"],
        ),
        (record("I think.", "Hm.", "Action: count(#0)", valid=1), ["invalid_action"]),
        (
            record(*["Action: count(#0)", "Action: get_relations(x)"] * 3),
            ["long_term_repetition", "function_repetition"],
        ),
        (record("Thought: done\nFinal Answer: #3"), []),
    ],
)
def test_rules_of_function_calls(found: dict[str, Any], modes: list[str]) -> None:
    assert failure_modes(found, "knowledge_graph") == modes


@pytest.mark.parametrize(
    ("environment", "turn"),
    [
        ("science_world", "Think: I cannot find it. I go on."),
        ("web_arena", "I can't see it. My next action is ```click [7]```"),
        ("card_game", 'I am unable to hit it.\n{"pick_fish": "eel"}'),
        ("hotpot_qa", "I'm sorry, I do not recall it.\nSearch[Wales]"),
    ],
)
def test_what_acts_without_a_label_has_not_refused(environment: str, turn: str) -> None:
    assert failure_modes(record(turn), environment) == []
    assert failure_modes(record("I'm sorry, I can't do that."), environment) == ["refusal"]
    assert failure_modes(record(turn), "alfworld") == ["refusal"]


def test_rates_are_shares_of_episodes() -> None:
    records = [
        {"item": "alfworld-test-1", "failures": ["refusal"]},
        {"item": "alfworld-test-2", "failures": []},
        {"item": "alfworld-test-3"},  # not looked at
    ]
    rates = failure_rates(records)
    assert list(rates) == [f"failure_{mode}" for mode in MODES[:4]]
    assert (rates["failure_refusal"].value, rates["failure_refusal"].n) == (0.5, 2)
    assert failure_rates([{"item": "x"}]) == {}
    assert len(failure_rates([{"item": "knowledge_graph-test-1", "failures": []}])) == len(MODES)


@pytest.mark.parametrize(
    ("task", "environment"),
    [
        ("db", "database"),
        ("kg", "knowledge_graph"),
        ("alfworld", "alfworld"),
        ("os", "os"),
        ("webshop", "webshop"),
        ("mind2web", "mind2web"),
    ],
)
def test_good_trajectories_show_hardly_any(shared: Path, task: str, environment: str) -> None:
    """AgentInstruct's are all successful: what is found there is a false alarm."""
    rows = (shared / f"data/agentinstruct/{task}.jsonl").read_text("utf-8").splitlines()
    alarms = 0
    for row in map(json.loads, rows):
        turns = row["conversations"]
        trained = sum(bool(turn.get("loss")) for turn in turns if turn["from"] == "gpt")
        messages = [
            {"role": "assistant" if t["from"] == "gpt" else "user", "content": t["value"]}
            for t in turns
        ]
        facts = {"item": "x", "rounds": trained, "valid_rounds": trained, "messages": messages}
        alarms += bool(failure_modes(facts, environment))
    assert alarms <= 0.005 * len(rows)
