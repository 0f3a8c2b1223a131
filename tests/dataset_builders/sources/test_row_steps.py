"""`train_on`, `reasoning`, `rows` and `keep_last_turns` of a source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.conversation import Conversation, Message
from dataset_builders.errors import AgentTuningError, ConfigError, DataError
from dataset_builders.sources.loading import SourceSpec, fingerprint, load_source
from dataset_builders.sources.turn_selection import SELECTORS, select_turns

CALL = [{"type": "function", "id": "c", "function": {"name": "f", "arguments": "{}"}}]
RECORD = {
    "id": "r",
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q0"},
        {"role": "assistant", "content": "OK", "train": False, "reasoning_content": "w0"},
        {"role": "user", "content": "q1"},
        {"role": "assistant", "content": "", "tool_calls": CALL, "reasoning_content": "w1"},
        {"role": "tool", "content": "r", "tool_call_id": "c"},
        {"role": "assistant", "content": "<think>\nw2\n</think>\n\na2"},
        {"role": "user", "content": "q2"},
        {"role": "assistant", "content": "write `</think>` there"},
    ],
}


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps(RECORD) + "\n", "utf-8")
    return str(file)


def load(path: str, **settings: Any) -> tuple[Conversation, dict[str, int]]:
    found = load_source(SourceSpec(path, "messages", **settings))
    (conversation,) = found.conversations
    return conversation, dict(found.report.changed)


def trained(conversation: Conversation) -> list[int]:
    return [i for i, message in enumerate(conversation.messages) if message.trained]


@pytest.mark.parametrize(
    ("name", "chosen"), [("all", [4, 6, 8]), ("last", [8]), ("calls", [4]), ("final", [6, 8])]
)
def test_built_in_selectors(path: str, name: str, chosen: list[int]) -> None:
    conversation, changed = load(path, train_on=name)
    assert trained(conversation) == chosen
    assert changed == ({"train_on": 3 - len(chosen)} if len(chosen) < 3 else {})


def test_the_registry_is_open(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SELECTORS, "second", lambda conversation: [6])
    assert trained(load(path, train_on="second")[0]) == [6]


def test_a_function_of_the_users_own(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def pick(conversation):\n    return {2, 6}\n", "utf-8")
    conversation, changed = load(path, train_on="./mine.py:pick")
    assert trained(conversation) == [6]  # The source's own flag keeps turn 2 out.
    assert changed == {"train_on": 2}
    first = fingerprint(SourceSpec(path, "messages", train_on="./mine.py:pick"))
    (tmp_path / "mine.py").write_text("def pick(conversation):\n    return [8]\n", "utf-8")
    assert trained(load(path, train_on="./mine.py:pick")[0]) == [8]
    assert fingerprint(SourceSpec(path, "messages", train_on="./mine.py:pick")) != first


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("return [3]", r"data.jsonl:1: .*found 3, expected indices of assistant turns \(2, 4, 6"),
        ("return [99]", "found 99, expected indices"),
        ("return [True]", "found True, expected indices"),
        ("return ['4']", "found '4', expected indices"),
        ("return None", r"train_on ./bad.py:pick raised TypeError: 'NoneType'"),
        ("raise ValueError('two\\nlines')", r"raised ValueError: two lines \(bad.py:2\)"),
    ],
)
def test_a_wrong_choice_is_one_clear_line(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.py").write_text(f"def pick(conversation):\n    {body}\n", "utf-8")
    with pytest.raises(DataError, match=problem) as caught:
        load(path, train_on="./bad.py:pick")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("frist", "train_on: found 'frist', expected all, last, calls, final, module:function"),
        ("./absent.py:pick", "train_on: found no file ./absent.py"),
        ("json:absent", "json:absent: found nothing, expected a function"),
        ("no_such_module:pick", "no_such_module cannot be imported: ModuleNotFoundError"),
        ("json:", "found 'json:', expected module:function"),
    ],
)
def test_an_unknown_selector_is_refused(path: str, name: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load(path, train_on=name)


def test_a_selector_cannot_train_what_is_not_the_models() -> None:
    conversation = Conversation.create([Message("user", "q"), Message("assistant", "a", True)])
    with pytest.raises(AgentTuningError, match="found 0"):
        select_turns(conversation, "mine", lambda _: [0])


def test_reasoning_is_dropped_and_counted(path: str) -> None:
    conversation, changed = load(path, reasoning="drop")
    assert changed == {"reasoning": 3}
    assert not any(message.reasoning for message in conversation.messages)
    contents = [m.content for m in conversation.messages if m.role == "assistant"]
    assert contents == ["OK", "", "a2", "write `</think>` there"]
    assert trained(conversation) == [4, 6, 8]


def test_a_turn_of_reasoning_alone_is_not_trained_without_it(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "<think>\nonly\n</think>"},
        {"role": "user", "content": "r"},
        {"role": "assistant", "content": "a"},
    ]
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps({"messages": messages}) + "\n", "utf-8")
    found = load_source(SourceSpec(str(file), "messages", reasoning="drop"))
    assert trained(found.conversations[0]) == [3]
    assert found.report.changed == {"reasoning": 1, "reasoning_only": 1}
    assert "turns not trained, since they held only reasoning: 1" in found.report.summary()


def test_defaults_change_no_conversation_and_no_fingerprint(path: str) -> None:
    conversation, changed = load(path)
    explicit, _ = load(path, train_on="all", reasoning="train", rows="auto", keep_last_turns=None)
    assert conversation.options is None
    assert explicit.options is None
    assert changed == {}
    default = fingerprint(SourceSpec(path, "messages"))
    others = [
        {"train_on": "last"},
        {"reasoning": "mask"},
        {"reasoning": "drop"},
        {"rows": "per_turn"},
        {"rows": "conversation"},
        {"keep_last_turns": 3},
        {"keep_last_turns": 4},
    ]
    found = [fingerprint(SourceSpec(path, "messages", **settings)) for settings in others]
    assert len({default, *found}) == 1 + len(others)


def test_the_opening_is_what_comes_before_the_first_trained_turn(path: str) -> None:
    options = load(path, train_on="last", keep_last_turns=2)[0].options
    assert options is not None
    assert (options.opening_turns, options.keep_last_turns, options.rows) == (1, 2, "auto")


def test_one_row_cannot_have_several_histories(path: str) -> None:
    with pytest.raises(ConfigError, match="keep_last_turns: found with rows: conversation, exp"):
        load(path, keep_last_turns=2, rows="conversation")
