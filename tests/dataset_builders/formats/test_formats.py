"""The shapes that users of TRL and Axolotl bring, and how they are told apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataset_builders import DataError
from dataset_builders.conversation import Conversation, Message, ToolCall
from dataset_builders.readers.building import LoadResult
from dataset_builders.sources.detection import detect_format
from dataset_builders.sources.inputs import read_source, resolve_source
from dataset_builders.sources.loading import Format, SourceSpec, load_source

USER: dict[str, Any] = {"role": "user", "content": "q"}
REPLY: dict[str, Any] = {"role": "assistant", "content": "a"}
HUMAN: dict[str, Any] = {"from": "human", "value": "q"}
GPT: dict[str, Any] = {"from": "gpt", "value": "a"}
SCHEMA = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": "é"}'}}


def load(tmp_path: Path, record: Any, format: Format | None = None) -> LoadResult:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(record) + "\n")
    return load_source(resolve_source(SourceSpec(str(path), format)))


def one(tmp_path: Path, record: Any, format: Format | None = None) -> Conversation:
    (conversation,) = load(tmp_path, record, format).conversations
    return conversation


def told(conversation: Conversation) -> list[tuple[str, str, bool]]:
    return [(m.role, m.content, m.trained) for m in conversation.messages]


def refused(tmp_path: Path, record: Any, format: Format) -> str:
    with pytest.raises(DataError, match="none of 1 records can be used") as caught:
        load(tmp_path, record, format)
    text = str(caught.value)
    assert "for example mine.jsonl:1: " in text
    return text


PAIR = [("user", "q", False), ("assistant", "a", True)]
MASKED = [("user", "q", False), ("assistant", "a", False), *PAIR]


@pytest.mark.parametrize(
    ("format", "record", "expected"),
    [
        ("messages", {"messages": [USER, REPLY]}, PAIR),
        ("messages", {"conversations": [USER, REPLY]}, PAIR),
        ("messages", {"messages": [{"role": "human", "content": "q"}, REPLY]}, PAIR),
        ("messages", {"conversations": [HUMAN, {**GPT, "weight": 1}]}, PAIR),
        ("messages", {"system": "s", "messages": [USER, REPLY]}, [("system", "s", False), *PAIR]),
        (
            "messages",
            {"system": "s", "messages": [{"role": "system", "content": "s"}, USER, REPLY]},
            [("system", "s", False), *PAIR],
        ),
        (
            "messages",
            {"messages": [USER, {"role": "assistant", "content": [{"type": "text", "text": "a"}]}]},
            PAIR,
        ),
        *(
            (
                "messages",
                {"messages": [USER, {**REPLY, name: no}, USER, {**REPLY, name: yes}]},
                MASKED,
            )
            for name, no, yes in (
                ("train", False, True),
                ("train", False, None),
                ("training", False, True),
                ("loss", False, True),
                ("weight", 0, 1),
                ("weight", 0.0, 1.0),
            )
        ),
        (
            "messages",
            {"conversations": [HUMAN, {**GPT, "training": False}, HUMAN, GPT]},
            MASKED,
        ),
        ("prompt_completion", {"prompt": "q", "completion": "a"}, PAIR),
        ("prompt_completion", {"prompt": [USER, REPLY, USER], "completion": [REPLY]}, MASKED),
        ("alpaca", {"instruction": "q", "input": "", "output": "a"}, PAIR),
        ("alpaca", {"instruction": "q", "output": "a"}, PAIR),
        (
            "alpaca",
            {"instruction": "q", "input": "i", "output": "a", "system": "s"},
            [("system", "s", False), ("user", "q\ni", False), ("assistant", "a", True)],
        ),
    ],
)  # fmt: skip
def test_shapes(tmp_path: Path, format: Format, record: Any, expected: Any) -> None:
    # The format is told, not given.
    conversation = one(tmp_path, record)
    assert told(conversation) == expected
    assert conversation.source == "mine"
    assert conversation.where == "mine.jsonl:1"
    assert resolve_source(tmp_path / "mine.jsonl").spec.format == format


def test_tools_and_calls(tmp_path: Path) -> None:
    turns = [USER, {"role": "assistant", "tool_calls": [CALL]},
             {"role": "tool", "content": "r", "tool_call_id": "c"}, REPLY]  # fmt: skip
    for tools in ([SCHEMA], json.dumps([SCHEMA]), json.dumps([SCHEMA], indent=2)):
        found = one(tmp_path, {"messages": turns, "tools": tools, "model": "gpt-4"})
        assert found.tools == json.dumps([SCHEMA])
        assert found.model == "gpt-4"
        assert found.messages[1] == Message(
            "assistant", "", trained=True, tool_calls=(ToolCall("f", '{"x": "é"}', "c"),)
        )
        assert found.messages[2].tool_call_id == "c"
    completion = {"prompt": [USER], "completion": turns[1:], "tools": [SCHEMA]}
    found = one(tmp_path, completion)
    assert found.tools == json.dumps([SCHEMA])
    assert found.num_trained == 2


def call(**arguments: Any) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": "a",
        "tool_calls": [{"function": {"name": "f", "arguments": arguments}}],
    }


def test_keys_that_arrow_fills_in_are_no_arguments(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset

    rows = [{"messages": [USER, call(x=1)]}, {"messages": [USER, call(y="z")]}]
    table = pa.Table.from_pylist(rows)
    assert (
        table.to_pylist()[0]["messages"][1]["tool_calls"][0]["function"]["arguments"]["y"] is None
    )
    pq.write_table(table, tmp_path / "a.parquet")
    from_file = load_source(resolve_source(tmp_path / "a.parquet")).conversations
    from_dataset, _ = read_source(Dataset(table), "agent", None)
    for conversations in (from_file, from_dataset):
        calls = [item.messages[1].tool_calls[0].arguments for item in conversations]
        assert calls == ['{"x": 1}', '{"y": "z"}']
    # What a JSON file holds is its author's.
    found = one(tmp_path, {"messages": [USER, call(x=None)]})
    assert found.messages[1].tool_calls[0].arguments == '{"x": null}'


def test_reasoning_stays_with_its_turn(tmp_path: Path) -> None:
    record = {"messages": [USER, {**REPLY, "reasoning_content": "why"}]}
    result = load(tmp_path, record)
    message = result.conversations[0].messages[1]
    assert (message.reasoning, message.content) == ("why", "a")
    assert result.report.changed == {}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"train": "false"}, "bad_flag 1; for example .*message 1: train: found 'false'"),
        ({"train": 1}, "bad_flag 1; .*train: found 1, expected true or false"),
        ({"weight": 0.5}, "bad_flag 1; .*weight: found 0.5, expected 0 or 1"),
        ({"weight": "1"}, "bad_flag 1; .*weight: found '1'"),
        ({"weight": 1, "train": False}, "conflicting_flags 1"),
        ({"content": [{"type": "image_url"}]}, "multimodal 1; .*message 1: content: found parts"),
        ({"content": ["a"]}, "multimodal 1"),
        ({"content": [{"type": "text", "text": "a", "weight": 0}]}, "content_parts 1"),
        ({"content": [{"type": "text", "text": "a"}] * 2}, "content_parts 1; .*found 2 parts"),
        ({"images": ["x"]}, "multimodal 1; .*images"),
        ({"function_call": {"name": "f"}}, "unsupported_field 1; .*former form of tool_calls"),
        ({"training_detail": [{}]}, "unsupported_field 1"),
        ({"thinking": ["x"]}, "unsupported_field 1"),
        ({"thinking": "x", "reasoning": "y"}, "unsupported_field 1"),
        ({"role": "bot"}, "bad_messages 1; .*role: found 'bot'"),
        ({"role": "narrator"}, "bad_messages 1"),
        ({"content": 3}, "bad_messages 1; .*content: found int"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}, "arguments: not JSON"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "NaN"}}]}, "JSON object"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": '{"a": NaN}'}}]}, "not JSON"),
        ({"train": False}, "no_trained_turn 1"),
        ({"content": "\ud800"}, "not_unicode 1"),
    ],
)
def test_turns_are_refused_not_guessed(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    record = {"messages": [USER, {**REPLY, **fields}]}
    with pytest.raises(DataError, match=reason):
        load(tmp_path, record, "messages")


@pytest.mark.parametrize(
    ("format", "record", "reason"),
    [
        ("messages", {"messages": [USER, REPLY], "images": ["x"]}, "multimodal"),
        ("messages", {"messages": [USER, REPLY], "functions": [1]}, "unsupported_field"),
        ("messages", {"messages": [USER, REPLY], "tools": "{"}, "tools: not JSON"),
        ("messages", {"messages": [USER, REPLY], "tools": {"a": 1}}, "tools: found dict"),
        ("messages", {"messages": [USER, REPLY], "tools": [{}]}, "schema 0: function name"),
        (
            "messages",
            {"messages": [USER, REPLY], "chat_template_kwargs": {"enable_thinking": False}},
            "unsupported_field",
        ),
        ("messages", {"messages": [USER, REPLY], "system": 3}, "system: found int"),
        (
            "messages",
            {"system": "s", "messages": [{"role": "system", "content": "t"}, USER, REPLY]},
            "system: differs from the system turn",
        ),
        ("messages", {"text": "x"}, "messages: missing, found only 'text'"),
        ("prompt_completion", {"prompt": "q", "completion": [REPLY]}, "bad_pair"),
        ("prompt_completion", {"prompt": "q"}, "bad_pair"),
        ("prompt_completion", {"prompt": "q", "completion": " "}, "empty_turn"),
        (
            "prompt_completion",
            {"prompt": [USER, {**REPLY, "train": True}], "completion": [REPLY]},
            "conflicting_flags",
        ),
        ("prompt_completion", {"prompt": [USER], "completion": [USER]}, "no_trained_turn"),
        ("alpaca", {"instruction": "q", "output": 3}, "output: found int"),
        ("alpaca", {"instruction": "q"}, "output: found nothing"),
        ("alpaca", {"instruction": "", "input": "", "output": "a"}, "empty_turn"),
        ("alpaca", {"instruction": "q", "output": "a", "history": [["x", "y"]]}, "history"),
    ],
)
def test_records_are_refused_not_guessed(
    tmp_path: Path, format: Format, record: Any, reason: str
) -> None:
    assert reason in refused(tmp_path, record, format)


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([{"conversations": [HUMAN, GPT]}], "sharegpt"),
        ([{"conversations": [HUMAN, {**GPT, "loss": True}]}], "agentinstruct"),
        # A copy that lost its flags: as chat, its demonstrations would be trained.
        ([{"id": "db_12", "conversations": [HUMAN, GPT]}], "agentinstruct"),
        ([{"id": "QWJhYvA_0", "conversations": [HUMAN, GPT]}], "sharegpt"),
        # Flags on later records only.
        ([{"conversations": [HUMAN, GPT]}, {"conversations": [HUMAN, {**GPT, "weight": 0}]}],
         "messages"),
        ([{"conversations": [HUMAN, {**GPT, "weight": None}]}], "sharegpt"),
        ([{"schema_version": "ATIF-v1.6", "steps": []}], "atif"),
        ([{"id": "x", "content": [{"class_": "text_observation"}]}], "adp"),
        ([3, None, "x", {"prompt": "", "completion": ""}], "prompt_completion"),
    ],
)  # fmt: skip
def test_detection(tmp_path: Path, records: list[Any], expected: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert detect_format(SourceSpec(str(path))) == expected


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"segments": [{"label": True, "text": "<s>hi"}]}, "segments: segments are ready-made"),
        ({"prompt": "x", "chosen": "a", "rejected": "b"}, "rejected: preference pairs"),
        ({"text": "x"}, "none of the first 1 records has a field messages"),
    ],
)
def test_shapes_that_cannot_be_told_as_conversations(
    tmp_path: Path, record: Any, message: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(record) + "\n")
    with pytest.raises(DataError, match=message):
        resolve_source(path)


def test_an_unknown_format_is_told_with_what_could_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    path.write_text('{"x": 1}\n{"messages": [\n{"messages": [\n', "utf-8")
    with pytest.raises(DataError, match=r"to be named; cut\.jsonl:2: .+") as caught:
        detect_format(SourceSpec(str(path)))
    assert "cut.jsonl:3" not in str(caught.value)
    array = tmp_path / "cut.json"
    array.write_text('[{"x": 1}, {"messages": [{"role": "us', "utf-8")
    with pytest.raises(DataError, match=r"to be named; cut\.json: .+"):
        detect_format(SourceSpec(str(array)))
