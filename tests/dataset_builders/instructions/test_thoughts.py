"""Thoughts added afterwards: written from what was seen, never changing what was done."""

from __future__ import annotations

import asyncio
import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.collection.collector import run as run_collection
from dataset_builders.collection.engine import RolloutConfig
from dataset_builders.collection.settings import CollectConfig
from dataset_builders.environments import HELD_IN, EnvironmentSpec, load_environment
from dataset_builders.environments.base import OracleStep
from dataset_builders.instructions.run_io import Writer, asking
from dataset_builders.instructions.thoughts import ThoughtAdder, ThoughtReport, rejection, tidy
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from tests.support.endpoint import Messages
from tests.support.served import Serve

DATABASE = load_environment("database")
FORM = DATABASE.make()
BARE = "Action: Operation\n```sql\nSELECT 1\n```"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("I look at the table first.", ""),
        ('"Thought: I look at the table first."', ""),
        (" ... ", "empty"),
        ("I look. " * 200, "too_long"),
        ("I'm sorry, but I cannot help with that.", "refusal"),
        ("I look.\nAction: Answer\nFinal Answer: [1]", "action"),
        ("I look.\n```sql\nSELECT 2\n```", "action"),
    ],
)
def test_what_is_a_thought(reply: str, reason: str) -> None:
    assert rejection(reply, BARE, FORM) == reason


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60))
def test_no_accepted_text_changes_the_action(reply: str) -> None:
    if not rejection(reply, BARE, FORM):
        turn = FORM.with_thought(BARE, tidy(reply))
        assert FORM.parse(turn) == FORM.parse(BARE)
        assert FORM.has_thought(turn)


def bare_trajectory() -> Trajectory:
    (played,) = play(DATABASE, ["database-train-0000"], OraclePolicy())
    messages = tuple(
        replace(each, content=FORM.with_thought(each.content, "")) if each.trained else each
        for each in played.messages
    )
    assert not any(FORM.has_thought(each.content) for each in messages if each.trained)
    return replace(played, messages=messages)


def add(writer: Writer, folder: Path, trajectory: Trajectory) -> tuple[Trajectory, ThoughtReport]:
    report = ThoughtReport()

    async def run() -> Trajectory:
        async with asking(writer, folder, {}) as (client, _):
            return await ThoughtAdder(DATABASE, report)(client, trajectory)

    return asyncio.run(run()), report


def test_thoughts_are_added_once_and_know_only_the_past(serve: Serve, tmp_path: Path) -> None:
    replies = iter(["Action: Answer", "I'm sorry.", "I ask the table.", "Now I know."])
    writer, endpoint = serve(lambda messages: next(replies))
    bare = bare_trajectory()
    told, report = add(writer, tmp_path, bare)
    assert (report.turns, report.rejected) == ({"written": 2}, {"action": 1, "refusal": 1})
    turns = [each.content for each in told.messages if each.trained]
    assert [FORM.has_thought(turn) for turn in turns] == [True, True]
    before = [each.content for each in bare.messages if each.trained]
    assert [FORM.parse(turn) for turn in turns] == [FORM.parse(turn) for turn in before]
    result = bare.messages[-2].content
    asked = [request["messages"][-1]["content"] for request in endpoint.requests]
    assert [result in text for text in asked] == [False, False, False, True]
    assert "I ask the table." in asked[-1]
    # Started again, nothing is asked for, and what has its thoughts is left alone.
    assert add(writer, tmp_path, bare)[0] == told
    again, report = add(writer, tmp_path, told)
    assert again is told
    assert report.turns == {"had_thought": 2}
    assert len(endpoint.requests) == 4


def test_a_turn_without_a_usable_thought_stays_bare(serve: Serve, tmp_path: Path) -> None:
    writer, _ = serve(lambda messages: "")
    bare = bare_trajectory()
    told, report = add(writer, tmp_path, bare)
    assert told is bare
    assert (report.turns, report.rejected) == ({"left_bare": 2}, {"empty": 6})


def test_a_turn_without_an_action_needs_none(serve: Serve, tmp_path: Path) -> None:
    writer, _ = serve(lambda messages: "I think.")
    bare = bare_trajectory()
    last = replace(bare.messages[-1], content="I give up.")
    told, report = add(writer, tmp_path, replace(bare, messages=(*bare.messages[:-1], last)))
    assert report.turns == {"written": 1, "no_action": 1}
    assert told.messages[-1] == last


def test_the_collector_adds_them_to_what_it_keeps(serve: Serve, tmp_path: Path) -> None:
    solved = [each.content for each in bare_trajectory().messages if each.trained]

    def reply(messages: Messages) -> str:
        if "<transcript>" in messages[-1]["content"]:
            return "I do what the task asks for."
        return solved[sum(each["role"] == "assistant" for each in messages) - 1]

    writer, endpoint = serve(reply)
    report = ThoughtReport()
    play = RolloutConfig(DATABASE, writer.endpoint)
    config = CollectConfig(play=play, out=tmp_path, tasks=("database-train-0000",))
    finish = ThoughtAdder(DATABASE, report)
    assert pickle.loads(pickle.dumps(finish)) == finish
    assert run_collection(config, finish=finish)["kept"] == 1
    assert report.to_dict() == {"turns": {"written": 2}, "rejected": {}}
    (row,) = (tmp_path / "jsonl/db.jsonl").read_text("utf-8").splitlines()
    said = [turn["value"] for turn in json.loads(row)["conversations"] if turn["loss"]]
    assert [turn.startswith("I do what the task asks for.\n") for turn in said] == [True, True]
    assert run_collection(config, finish=finish)["kept"] == 1
    assert len(endpoint.requests) == 4


MOVES = {
    "alfworld": "go to desk 1",
    "database": "Operation\nSELECT 1",
    "knowledge_graph": "get_relations(x)",
    "mind2web": "B\nCLICK",
    "os": "bash\nls -l\necho done",
    "webshop": "search[red shoes]",
}


@pytest.mark.parametrize("name", sorted(HELD_IN))
def test_every_format_takes_a_thought(name: str) -> None:
    form = EnvironmentSpec(name).make()
    bare = form.write(OracleStep("", MOVES[name]))
    assert not form.has_thought(bare)
    told = form.with_thought(bare, "I see a way.")
    assert form.has_thought(told)
    assert "I see a way." in told
    assert form.parse(told) == form.parse(bare)


FILES = {"database": "db", "knowledge_graph": "kg"}


@pytest.mark.parametrize("name", sorted(HELD_IN))
def test_real_turns_keep_their_action(name: str, shared: Path) -> None:
    form = EnvironmentSpec(name).make()
    text = (shared / f"data/agentinstruct/{FILES.get(name, name)}.jsonl").read_text("utf-8")
    turns = [turn for line in text.splitlines() for turn in json.loads(line)["conversations"]]
    acts = [turn["value"] for turn in turns if turn["loss"]]
    assert len(acts) > 10
    for act in acts:
        assert form.parse(act) is not None
        assert rejection("I look at what is there.", act, form) == ""


def test_calls_of_tools_get_thoughts_as_their_text(serve: Serve, tmp_path: Path) -> None:
    tools = load_environment("database", dialogue="tools")
    (played,) = play(tools, ["database-train-0000"], OraclePolicy())
    bare = replace(
        played,
        messages=tuple(replace(m, content="" if m.trained else m.content) for m in played.messages),
    )
    replies = iter(["I ask the table.", "Now I know."])
    writer, endpoint = serve(lambda messages: next(replies))
    report = ThoughtReport()

    async def run() -> Trajectory:
        async with asking(writer, tmp_path, {}) as (client, _):
            return await ThoughtAdder(tools, report)(client, bare)

    told = asyncio.run(run())
    assert report.turns == {"written": 2}
    turns = [each for each in told.messages if each.trained]
    assert [each.content for each in turns] == ["I ask the table.", "Now I know."]
    calls = [each.tool_calls for each in played.messages if each.trained]
    assert [each.tool_calls for each in turns] == calls
    (first, second) = (request["messages"][-1]["content"] for request in endpoint.requests)
    assert "[AGENT]\nI ask the table.\nexecute_sql({" in second
    assert ["[RESULT]" in text for text in (first, second)] == [False, True]


@pytest.mark.parametrize("name", ["database", "os"])
def test_every_form_with_tools_takes_a_thought(name: str) -> None:
    form = EnvironmentSpec(name, options={"dialogue": "tools"}).make()
    for action in (
        ('Answer\n["1"]',) if name == "database" else ("finish", "answer\n1", MOVES[name])
    ):
        bare = form.write(OracleStep("", action))
        assert not form.has_thought(bare)
        told = form.with_thought(bare, "I see a way.")
        assert told == "I see a way."
        assert form.has_thought(told)
        assert form.parse(told) == form.parse(bare) == action
