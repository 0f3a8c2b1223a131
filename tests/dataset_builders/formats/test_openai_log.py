"""Logs of requests and responses: the loss covers the response, failed requests are counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.errors import DataError
from dataset_builders.readers.building import LoadResult
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import SourceSpec, load_source

CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
REQUEST: dict[str, Any] = {
    "model": "alias",
    "messages": [
        {"role": "developer", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "q"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c", "content": "r"},
    ],
    "tools": TOOLS,
}
# As OpenAI and vLLM answer: with every field, null where it is not used.
ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1",
    "model": "model-2026-11",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {
                "role": "assistant",
                "content": "a",
                "refusal": None,
                "annotations": [],
                "audio": None,
                "function_call": None,
                "tool_calls": [],
                "reasoning_content": "because",
            },
        }
    ],
}


def load(folder: Path, *rows: Any, **options: Any) -> LoadResult:
    path = folder / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_source(resolve_source(SourceSpec(str(path), **options)))


def answer(**changes: Any) -> dict[str, Any]:
    """A response whose choice is changed."""
    return ANSWER | {"choices": [ANSWER["choices"][0] | changes]}


LAYOUTS: dict[str, dict[str, Any]] = {
    "gateway": {"request": REQUEST, "response": ANSWER},
    "bodies": {"request": {"body": REQUEST}, "response": {"status_code": 200, "body": ANSWER}},
    "text": {"request": json.dumps(REQUEST), "response": json.dumps(ANSWER)},
    "litellm": {
        "messages": REQUEST["messages"],
        "response": ANSWER,
        "model_parameters": {"tools": TOOLS},
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path: Path, layout: str) -> None:
    found = load(tmp_path, LAYOUTS[layout] | {"reward": 0.75})
    (one,) = found.conversations
    assert found.report.source.startswith("openai_log:")
    assert [(m.role, m.trained) for m in one.messages] == [
        ("system", False),
        ("user", False),
        ("assistant", False),
        ("tool", False),
        ("assistant", True),
    ]
    assert (one.messages[-1].content, one.messages[-1].reasoning) == ("a", "because")
    assert (one.id, one.model, one.reward) == ("chatcmpl-1", "model-2026-11", 0.75)
    assert json.loads(one.tools) == TOOLS


def test_a_response_that_calls_a_tool(tmp_path: Path) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    called = answer(message=message, finish_reason="tool_calls")
    request = REQUEST | {"messages": REQUEST["messages"][:2]}
    (one,) = load(tmp_path, {"request": request, "response": called}).conversations
    assert one.messages[-1].tool_calls[0].name == "f"
    assert one.messages[-1].trained


def test_min_reward(tmp_path: Path) -> None:
    rows = [LAYOUTS["gateway"] | {"reward": r} for r in (0, 1, None)]
    found = load(tmp_path, *rows, min_reward=0.5)
    assert found.report.kept == 1
    assert found.report.dropped == {"reward_below_threshold": 1, "no_reward": 1}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"request": {}}, "bad_log 1; .*request: found an empty object, expected an object with"),
        ({"response": None}, "bad_log 1; .*response: found None, expected an object with choices"),
        ({"response": "x{"}, "bad_log 1; .*response: found 'x{'"),
        ({"response": ANSWER | {"choices": []}}, "bad_log 1; .*choices: found 0, expected one"),
        ({"response": {"object": "x"}}, "bad_log 1; .*choices: found 'object', expected one"),
        ({"response": answer(message=None)}, "bad_log 1; .*message: found None"),
        ({"response": answer(finish_reason="length")}, "cut_turn 1; .*finish_reason: found 'len"),
        ({"response": answer(finish_reason="content_filter")}, "cut_turn 1"),
        ({"response": {"error": {"message": "m", "code": 429}}}, "generation_error 1; .*429: m"),
        (
            {"response": {"status_code": 500, "body": ANSWER}},
            "generation_error 1; .*response.status_code: found status 500",
        ),
        ({"error": "timeout"}, "generation_error 1; .*error: found timeout"),
        ({"reward": True}, "bad_reward 1; .*reward: found True"),
        (
            {"response": answer(message={"content": None, "refusal": "no"})},
            "unsupported_field 1; .*refusal",
        ),
        (
            {"request": REQUEST | {"messages": [{"role": "user", "content": None}]}},
            "bad_messages 1; .*message 0: content: found NoneType",
        ),
    ],
)
def test_records_that_are_dropped(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    row = LAYOUTS["gateway"] | changes
    with pytest.raises(DataError, match=rf"log.jsonl: none of 1 records can be used: {reason}"):
        load(tmp_path, row, format="openai_log")


def test_a_batch_is_joined_with_its_input_file(tmp_path: Path) -> None:
    def body(text: str) -> dict[str, Any]:
        return REQUEST | {"messages": [{"role": "user", "content": text}]}

    def line(name: str, **rest: Any) -> str:
        return json.dumps({"custom_id": name, **rest}) + "\n"

    asked = [line(n, method="POST", url="/v1/x", body=body(f"q{n}")) for n in ("1", "2", "3", "3")]
    (tmp_path / "input.jsonl").write_text("".join(asked))
    said = [
        line("2", id="b2", response={"status_code": 200, "body": ANSWER}, error=None),
        line("3", id="b3", response={"status_code": 200, "body": ANSWER}, error=None),
        line("4", id="b4", response={"status_code": 200, "body": ANSWER}, error=None),
    ]
    (tmp_path / "output.jsonl").write_text("".join(said))
    found = load_source(resolve_source(SourceSpec(str(tmp_path))))
    (one,) = found.conversations
    assert [m.content for m in one.messages] == ["q2", "a"]
    assert (one.id, one.where) == ("2", "output.jsonl:1")
    assert found.report.dropped == {"bad_log": 2, "no_response": 1}
    assert found.report.samples["bad_log"] == [
        "output.jsonl:2: custom_id: found in input.jsonl:3 and input.jsonl:4, expected one request",
        "output.jsonl:3: request: found 'custom_id', 'id', 'response', 'error', expected an object "
        "with messages",
    ]
    (sample,) = found.report.samples["no_response"]
    assert sample.startswith("input.jsonl:1: custom_id 1: found no response to it")


def test_requests_of_a_session_have_one_location(tmp_path: Path) -> None:
    row = LAYOUTS["gateway"]
    found = load(tmp_path, row | {"session_id": 7}, row | {"metadata": {"session_id": 7}}, row)
    assert [c.where for c in found.conversations] == ["session 7", "session 7", "log.jsonl:3"]
