"""Tool calls of an endpoint's responses, as servers spell them well and badly."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from dataset_builders.conversation import Message
from dataset_builders.endpoints.client import EndpointClient
from dataset_builders.endpoints.concurrency import AdaptiveLimit
from dataset_builders.endpoints.endpoint import Endpoint as Model
from dataset_builders.endpoints.reply import Reply
from dataset_builders.endpoints.requests import Sampling
from dataset_builders.errors import EndpointError
from dataset_builders.tools import ToolCall, parse_tools
from tests.support.account import tool
from tests.support.endpoint import Endpoint, Fault, serving

pytest.importorskip("openai")

TOOLS = parse_tools([tool("pay", {"type": "object"}), tool("look_up", None)])
PAY = ToolCall("pay", '{"coins": 1}', "c1")
HISTORY = [
    Message("user", "Pay."),
    Message("assistant", "", True, (PAY,)),
    Message("tool", "1 coin", tool_call_id="c1", name="pay"),
]


def ask(endpoint: Endpoint, tools: str = TOOLS) -> Reply:
    async def run() -> Reply:
        model = Model("m", endpoint.url, timeout=20, tries=3, back_off=0.02)
        async with EndpointClient(model, AdaptiveLimit(2)) as client:
            body = Sampling().request("m", HISTORY, 50, 0, tools)
            return await client.send(body, tools=tools)

    with serving(endpoint):
        return asyncio.run(run())


def said(**message: Any) -> Endpoint:
    return Endpoint(lambda messages: dict(message))


def native(arguments: Any, name: Any = "pay", **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}} | fields


def test_a_request_offers_tools_and_carries_calls_and_results() -> None:
    endpoint = said(content="done")
    assert ask(endpoint).text == "done"
    (sent,) = endpoint.requests
    assert sent["tools"] == json.loads(TOOLS)
    assert sent["messages"] == [
        {"role": "user", "content": "Pay."},
        {"role": "assistant", "content": "", "tool_calls": [native('{"coins": 1}', id="c1")]},
        {"role": "tool", "content": "1 coin", "tool_call_id": "c1", "name": "pay"},
    ]


@pytest.mark.parametrize(
    ("call", "read"),
    [
        (native('{"coins": 1}', id="c1"), PAY),
        (native({"coins": 1}, id="c1"), PAY),  # an object, as Ollama sends it
        (native('{"coins": 1}'), ToolCall("pay", '{"coins": 1}')),  # without an id
        (native('{"coins": 1}', id=7, index=0), ToolCall("pay", '{"coins": 1}', "7")),
        (native("", "look_up", id="c1"), ToolCall("look_up", "{}", "c1")),
        (native(None, "look_up", id="c1"), ToolCall("look_up", "{}", "c1")),
        (native('{"a": "\\ud83d"}', id="c1"), ToolCall("pay", '{"a": "\ufffd"}', "c1")),
        (native('{"wrong": [1, {"b": null}]}'), ToolCall("pay", '{"wrong": [1, {"b": null}]}')),
    ],
)
def test_calls_are_read_in_every_form(call: dict[str, Any], read: ToolCall) -> None:
    reply = ask(said(content=None, tool_calls=[call], finish_reason="tool_calls"))
    assert (reply.text, reply.tool_calls, reply.malformed) == ("", (read,), ())
    assert reply.calls == 0  # nothing is dropped


def test_the_deprecated_field_is_read() -> None:
    reply = ask(said(content=None, function_call={"name": "pay", "arguments": '{"coins": 1}'}))
    assert reply.tool_calls == (ToolCall("pay", '{"coins": 1}'),)


def test_ten_calls_keep_their_order_beside_text_and_reasoning() -> None:
    ten = [native(json.dumps({"coins": n}), id=f"c{n}") for n in range(10)]
    reply = ask(said(content="I pay.", tool_calls=ten, reasoning_content="Hm."))
    assert [json.loads(call.arguments)["coins"] for call in reply.tool_calls] == list(range(10))
    assert (reply.text, reply.reasoning) == ("I pay.", "Hm.")


@pytest.mark.parametrize(
    ("call", "spelled"),
    [
        (native('{"coins": '), '{"name": "pay", "arguments": {"coins": }'),
        (native("[1]"), '{"name": "pay", "arguments": [1]}'),
        (native("coins=1"), '{"name": "pay", "arguments": coins=1}'),
        (native("{}", "pay me"), '{"name": "pay me", "arguments": {}}'),
        (native("{}", None), '{"name": null, "arguments": {}}'),
        ({"id": "1", "type": "function"}, '{"id": "1", "type": "function"}'),
        ("nonsense", '"nonsense"'),
    ],
)
def test_a_call_that_cannot_be_read_is_kept_as_spelled(call: Any, spelled: str) -> None:
    reply = ask(said(content=None, tool_calls=[call, native('{"coins": 1}', id="c1")]))
    assert reply.malformed == (spelled,)
    assert reply.tool_calls == (PAY,)


def test_a_reply_with_reasoning_only_has_no_call() -> None:
    reply = ask(said(content=None, reasoning_content="I should pay.", tool_calls=[]))
    assert (reply.text, reply.tool_calls, reply.malformed) == ("", (), ())
    assert reply.reasoning == "I should pay."


SPELLED = '<tool_call>\n{"name": "pay", "arguments": {"coins": 1}}\n</tool_call>'


@pytest.mark.parametrize(
    ("content", "text", "count", "malformed"),
    [
        (SPELLED, "", 1, 0),
        (f"I pay.\n{SPELLED}\nAnd again.\n{SPELLED}", "I pay.\n\nAnd again.", 2, 0),
        (f"<think>\nPerhaps {SPELLED}?\n</think>\n\n{SPELLED}", "", 1, 0),
        ('[TOOL_CALLS] [{"name": "pay", "arguments": {"coins": 1}}]', "", 1, 0),
        ("\n".join([SPELLED] * 10), "", 10, 0),  # Line breaks between calls are no text.
        ('<tool_call>\n{"name": "pay", "arguments": {"coins": \n</tool_call>', "", 0, 1),
        ('<tool_call>{"name": "pay me", "arguments": {}}</tool_call>', "", 0, 1),
        ("The tool pay takes coins.", "The tool pay takes coins.", 0, 0),
    ],
)
def test_calls_spelled_in_the_text_are_read(
    content: str, text: str, count: int, malformed: int
) -> None:
    pytest.importorskip("transformers")
    reply = ask(said(content=content))
    assert " ".join(reply.text.split()) == " ".join(text.split())
    assert bool(reply.text) == bool(text)
    assert reply.tool_calls == (ToolCall("pay", '{"coins": 1}'),) * count
    assert len(reply.malformed) == malformed
    assert ("Perhaps" in reply.reasoning) == ("Perhaps" in content)


def test_native_calls_win_over_text_that_repeats_them() -> None:
    reply = ask(said(content=SPELLED, tool_calls=[native('{"coins": 1}', id="c1")]))
    assert (reply.text, reply.tool_calls) == (SPELLED, (PAY,))


def test_calls_of_a_text_dialogue_are_counted_and_dropped() -> None:
    reply = ask(said(content="x", tool_calls=[native("{}"), native("{")]), tools="")
    assert (reply.calls, reply.tool_calls, reply.malformed) == (2, (), ())


@pytest.mark.parametrize(
    ("message", "param", "named"),
    [
        (
            "Invalid schema for function 'look_up': schema must be of type object",
            "tools[1].function.parameters",
            "refuses the tool 'look_up'",
        ),
        ("Value error at tools.0.function.parameters", "", "refuses the tool 'pay'"),
        (
            '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser',
            "",
            "refuses tools",
        ),
        ("registry.ollama.ai/library/x does not support tools", "", "refuses tools"),
    ],
)
def test_an_endpoint_that_refuses_the_tools_ends_the_run(
    message: str, param: str, named: str
) -> None:
    body = json.dumps({"error": {"message": message, "param": param or None}}).encode()
    endpoint = Endpoint(lambda messages: "x", lambda n: Fault(400, body=body))
    with pytest.raises(EndpointError, match=f"the endpoint {named}: HTTP 400") as raised:
        ask(endpoint)
    assert type(raised.value) is EndpointError  # no doubt: it is not the task's fault
    assert endpoint.counts.total() == 1
