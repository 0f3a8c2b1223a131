"""Format variation of real agent conversations: text protocols and native tool calls."""

from __future__ import annotations

import json
import os
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.collection.conversations import to_conversation, write_jsonl
from dataset_builders.conversation import Conversation, Message, ToolCall
from dataset_builders.environments import load_environment
from dataset_builders.errors import ConfigError, SourceNotFoundError
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import SourceSpec, load_source
from dataset_builders.tools import TOOL_NAME, parse_tools, tool_names
from dataset_builders.variation.settings import VarySettings
from dataset_builders.variation.tool_names import new_names
from dataset_builders.variation.vary import stream_variants

DESK = Path(__file__).resolve().parents[3] / "examples/support_desk/support_desk.py"
ALL: dict[str, Any] = {"tools": True, "wording": True, "order": True}


def solved(name: str, number: int, **options: Any) -> list[Conversation]:
    world = load_environment(name, **options)
    played = play(world, world.task_ids("train")[:number], OraclePolicy(), batch_size=1)
    task = world.task
    return [
        Conversation.create(c.messages, id=str(n), task=task, tools=c.tools, where=f"f:{n}")
        for n, c in enumerate(map(to_conversation, played))
    ]


def varied(rows: list[Conversation], **given: Any) -> tuple[list[Conversation], Counter[str]]:
    counts: Counter[str] = Counter()
    return list(stream_variants(rows, VarySettings(**given), counts)), counts


def actions(row: Conversation) -> list[str]:
    return [w for m in row.messages for w in re.findall(r"^Action: (\w+)$", m.content, re.M)]


def test_a_text_protocol_gets_one_pair_of_names_per_conversation() -> None:
    rows = solved("database", 6)
    found, counts = varied(rows, tools=True, original=False)
    assert counts == {"vary_tools": 6, "vary_variants": 6}
    for before, after in zip(rows, found, strict=True):
        names = dict(zip(actions(before), actions(after), strict=True))
        assert set(names) == {"Operation", "Answer"}
        assert not set(names) & set(names.values())
        # The same names in the instruction and in the turns; nothing else has changed.
        for ours, theirs in zip(before.messages, after.messages, strict=True):
            text = ours.content
            for old, new in names.items():
                text = re.sub(rf"(?<=Action: ){old}\b", new, text)
            assert (theirs.content, theirs.trained) == (text, ours.trained)
        assert (after.where, after.id) == (before.where, f"{before.id}-v1")
    assert len({tuple(actions(row)) for row in found}) > 1


def test_other_wordings_keep_the_engine_and_the_task() -> None:
    rows = solved("database", 8)
    found, counts = varied(rows, wording=True, variants=2)
    assert counts == {"vary_wording": 16, "vary_variants": 16}
    assert found[::3] == rows
    openings = {row.messages[0].content for row in found}
    assert len(openings) == 4
    assert all("an SQLite table" in text.replace("An SQLite", "an SQLite") for text in openings)
    for text in openings:
        assert "Action: Operation\n```sql\n" in text
        assert "Action: Answer\nFinal Answer: [" in text
    assert all(row.messages[1:] == rows[n // 3].messages[1:] for n, row in enumerate(found))
    assert varied(rows, wording=True, variants=2)[0] == found
    assert varied(rows, wording=True, variants=2, seed=1)[0] != found


def test_native_calls_are_renamed_everywhere() -> None:
    rows = solved(f"{DESK}:SupportDesk", 4)
    found, counts = varied(rows, **ALL, original=False, variants=3)
    assert (counts["vary_variants"], counts["vary_tools"]) == (12, 12)
    assert 0 < counts["vary_order"] <= 12
    for number, row in enumerate(found):
        before = rows[number // 3]
        names = set(tool_names(row.tools))
        assert len(names) == 4
        assert not names & set(tool_names(before.tools))
        assert all(TOOL_NAME.fullmatch(name) for name in names)
        used = {c.name for m in row.messages for c in m.tool_calls}
        assert used <= names
        assert {m.name for m in row.messages if m.role == "tool"} == used
        calls = [[(c.id, c.arguments) for c in m.tool_calls] for m in row.messages]
        assert calls == [[(c.id, c.arguments) for c in m.tool_calls] for m in before.messages]
    assert len({tuple(sorted(tool_names(row.tools))) for row in found}) > 3


def test_names_in_text_are_renamed_where_they_are_names() -> None:
    def schema(name: str, text: str) -> dict[str, Any]:
        return {"type": "function", "function": {"name": name, "description": text}}

    tools = [schema("find_orders", "Before refund."), schema("refund", "After find_orders.")]
    messages = (
        Message("user", "A refund, please. Use `refund` after find_orders, not find_orders_all."),
        Message("assistant", "", True, (ToolCall("refund", '{"item": "refund"}', "1"),)),
        Message("tool", "Call refund(item) again.", tool_call_id="1", name="refund"),
    )
    row = Conversation.create(messages, task="t", tools=parse_tools(tools))
    (made,), _ = varied([row], tools=True, original=False)
    find, refund = tool_names(made.tools)
    assert made.messages[0].content == (
        f"A refund, please. Use `{refund}` after {find}, not find_orders_all."
    )
    assert made.messages[1].tool_calls == (ToolCall(refund, '{"item": "refund"}', "1"),)
    assert made.messages[2].content == f"Call {refund}(item) again."
    described = [each["function"]["description"] for each in json.loads(made.tools)]
    assert described == ["Before refund.", f"After {find}."]


def test_new_names_are_valid_and_different() -> None:
    names = ["getUser", "get_user", "pay", "x", "list-all-items", "q" * 64, "HTTPGet2"]
    for seed in range(50):
        made = new_names(names, random.Random(seed))
        assert len({*made.values(), *names}) == 2 * len(names)
        assert all(TOOL_NAME.fullmatch(name) for name in made.values())


def test_what_cannot_be_varied_is_counted_and_kept() -> None:
    row = Conversation.create(
        [Message("user", "Hello"), Message("assistant", "Hi", trained=True)], task="alfworld"
    )
    assert varied([row], **ALL) == ([row], Counter(vary_none=1))
    assert varied([row], **ALL, original=False, variants=2) == ([row], Counter(vary_none=2))


def test_variants_of_a_conversation_are_different() -> None:
    rows = solved("database", 3)
    found, counts = varied(rows, wording=True, variants=5)
    assert len(set(found)) == len(found) == 3 * 4  # The conversation and three wordings.
    assert (counts["vary_variants"], counts["vary_none"]) == (9, 6)
    tools = parse_tools([{"name": name} for name in ("a", "b")])
    row = Conversation.create([Message("user", "Hello")], tools=tools)
    ((made,), _) = varied([row], order=True, original=False)
    assert tool_names(made.tools) == ["b", "a"]


def test_a_users_own_protocol(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("greeting:\n  - instruction: ['Hello']\n    wordings: ['good day']\n")
    row = Conversation.create(
        [Message("user", "Hello!"), Message("assistant", "Hi", trained=True)], task="greeting"
    )
    (made,), _ = varied([row], wording=True, original=False, file=str(file))
    assert made.messages[0].content == "Good day!"
    file.write_text("greeting:\n  - instruction: ['(']\n")
    with pytest.raises(ConfigError, match=r"own.yaml: greeting.0.*regular expression"):
        varied([row], wording=True, file=str(file))
    names = "{a: {pattern: a, others: [x]}, b: {pattern: b, others: [x]}}"
    file.write_text(f"greeting:\n  - instruction: ['H']\n    names: {names}\n")
    with pytest.raises(ConfigError, match=r"own.yaml: greeting.0: .*found 'x' twice"):
        varied([row], wording=True, file=str(file))
    with pytest.raises(SourceNotFoundError, match=r"none.yaml: No such file"):
        varied([row], wording=True, file=str(tmp_path / "none.yaml"))


@pytest.fixture
def sides(tmp_path: Path) -> dict[str, str]:
    found = {"agent": tmp_path / "desk.jsonl", "general": tmp_path / "chat.jsonl"}
    write_jsonl(found["agent"], solved(f"{DESK}:SupportDesk", 6))
    chats = [
        Conversation.create(
            [Message("user", f"What is {n}?"), Message("assistant", f"A number, {n}.", True)],
            id=f"chat {n}",
        )
        for n in range(9)
    ]
    write_jsonl(found["general"], chats)
    return {name: str(path) for name, path in found.items()}


def test_chats_with_tools_that_need_none(sides: dict[str, str]) -> None:
    given: dict[str, Any] = {"tools": True, "no_tool_share": 0.25}
    given["no_tool_from"] = sides["general"]
    vary, other = VarySettings(**given), VarySettings(**given, seed=1)
    source = resolve_source(SourceSpec(sides["agent"], vary=vary))
    rows, report = load_source(source)
    negatives = [row for row in rows if row.task == "no_tool"]
    assert (len(rows), len(negatives), report.changed["no_tool"]) == (16, 4, 4)
    offered = {row.tools for row in rows if row.task != "no_tool"}
    for row in negatives:
        assert row.tools in offered
        assert [(m.role, m.trained) for m in row.messages] == [("user", False), ("assistant", True)]
        assert not any(m.tool_calls for m in row.messages)
    assert "chats added that need no tool: 4" in report.summary()
    # The chats and the settings are part of the fingerprint.
    plain = resolve_source(SourceSpec(sides["agent"]))
    seeded = resolve_source(SourceSpec(sides["agent"], vary=other))
    before = {each.fingerprint for each in (plain, source, seeded)}
    Path(sides["general"]).write_text(Path(sides["general"]).read_text().replace("number", "digit"))
    assert len({*before, resolve_source(source.spec).fingerprint}) == 4


def test_a_share_that_cannot_be_reached_is_an_error(sides: dict[str, str]) -> None:
    def load(share: float, **given: Any) -> None:
        vary = VarySettings(no_tool_share=share, **given)
        load_source(resolve_source(SourceSpec(sides["agent"], vary=vary)))

    with pytest.raises(ConfigError, match=r"no_tool_from: missing"):
        load(0.1)
    with pytest.raises(ConfigError, match=r"found 9 chats .* expected 24 for a share of 0.8"):
        load(0.8, no_tool_from=sides["general"])
    write_jsonl(sides["agent"], solved("database", 3))
    with pytest.raises(ConfigError, match=r"no_tool_share: found no conversation with tools"):
        load(0.1, no_tool_from=sides["general"])


SHARED = Path(os.environ.get("AGENTTUNING_SHARED", "/nowhere")) / "data/agentinstruct"


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs AgentInstruct in AGENTTUNING_SHARED")
@pytest.mark.parametrize(("task", "sign"), [("db", "Action: "), ("os", "Act: ")])
def test_every_published_conversation_is_varied(task: str, sign: str) -> None:
    source = SourceSpec(str(SHARED / f"{task}.jsonl"), "agentinstruct")
    rows = list(load_source(source).conversations)
    found, counts = varied(rows, **ALL, original=False)
    assert counts == {
        "vary_variants": len(rows), "vary_wording": len(rows), "vary_tools": len(rows)
    }  # fmt: skip
    for row in found:
        said = {w for m in row.messages for w in re.findall(rf"^{sign}(\w+)", m.content, re.M)}
        assert not said & {"Operation", "Answer", "bash", "finish", "answer"}
        shown = set(re.findall(rf"^{sign}(\w+)", row.messages[0].content, re.M))
        assert said <= shown  # Each action of a turn is one that the instruction names.
