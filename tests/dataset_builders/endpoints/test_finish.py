"""Turns that a server gave up, or cut for want of room, are not the model's answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from dataset_builders.conversation import Message
from dataset_builders.endpoints.endpoint import Endpoint as Model
from dataset_builders.endpoints.errors import EpisodeEndedError
from dataset_builders.endpoints.reply import Reply
from dataset_builders.endpoints.requests import Sampling
from dataset_builders.endpoints.system_message import SystemFallback
from dataset_builders.errors import EndpointError
from dataset_builders.finish_reason import cut_by_context
from dataset_builders.rollouts.policy import TurnRequest
from tests.dataset_builders.endpoints.test_faults import Notes, ask, recorded
from tests.support.endpoint import Endpoint, Fault, serving

pytest.importorskip("openai")


def body(finish: Any = "stop", **choice: Any) -> bytes:
    """A response with status 200 and half a turn."""
    message = {"role": "assistant", "content": "First we add"}
    return json.dumps(
        {"choices": [{"finish_reason": finish, "message": message, **choice}]}
    ).encode()


GIVEN_UP = {
    "abort": body("abort"),
    "error": body("error"),
    "upper case": body("ERROR"),
    "resources": body("insufficient_system_resource"),
    "error of the choice": body(None, error={"code": 502, "message": "provider disconnected"}),
    "error of a choice that blames the request": body("stop", error={"code": 400, "message": "?"}),
    "error as text": body("stop", error="internal"),
    "error of the response": b'{"error": {"message": "overloaded", "code": 503}}',
    "error beside choices": json.dumps(json.loads(body()) | {"error": {"message": "x"}}).encode(),
    "no choices": b'{"choices": []}',
    "null choices": b'{"choices": null}',
}


@pytest.mark.parametrize("kind", GIVEN_UP)
def test_a_turn_that_the_server_gave_up_is_asked_for_again(kind: str) -> None:
    fault = Fault(body=GIVEN_UP[kind])
    endpoint = Endpoint(lambda messages: "Hi", lambda number: fault if number == 0 else None)
    (reply,), client, _ = ask(endpoint)
    assert isinstance(reply, Reply), reply
    assert (reply.text, endpoint.counts.total(), client.retries.total()) == ("Hi", 2, 1)


def test_one_that_is_given_up_always_is_never_written_down() -> None:
    notes = Notes()

    async def run(url: str) -> None:
        model = Model("m", url, tries=2, back_off=0.01)
        async with recorded(model, Sampling(), notes) as client:
            await client.next_turn(TurnRequest([Message("user", "Hello")], task_id="t"))

    endpoint = Endpoint(lambda messages: {"content": "First we", "finish_reason": "abort"})
    with serving(endpoint), pytest.raises(EndpointError, match="finish_reason 'abort'"):
        asyncio.run(run(endpoint.url))
    assert (notes.kept, endpoint.counts.total()) == ({}, 2)


def test_null_is_unfinished_where_other_turns_have_a_reason() -> None:
    endpoint = Endpoint(
        lambda messages: "Hi", lambda number: Fault(body=body(None)) if number == 1 else None
    )
    replies, client, _ = ask(endpoint, times=3)
    assert [reply.text for reply in replies if isinstance(reply, Reply)] == ["Hi"] * 3
    assert client.retries.total() == 1


def test_a_server_that_gives_null_always_is_asked_twice_once() -> None:
    endpoint = Endpoint(lambda messages: {"content": "Hi", "finish_reason": None})
    with serving(endpoint):

        async def run() -> list[str]:
            model = Model("m", endpoint.url, back_off=0.01)
            async with recorded(model, Sampling(), Notes()) as client:
                asked = [[Message("user", f"Hello {n}")] for n in range(3)]
                return [(await client.next_turn(TurnRequest(a, task_id="t"))).text for a in asked]

        assert asyncio.run(run()) == ["Hi"] * 3
    assert endpoint.counts.total() == 4


@pytest.mark.parametrize("finish", ["stop", "length", "tool_calls", "eos_token", ""])
def test_other_reasons_are_answers(finish: str) -> None:
    endpoint = Endpoint(lambda messages: {"content": "Hi", "finish_reason": finish}, usage=False)
    (reply,), _, _ = ask(endpoint)
    assert isinstance(reply, Reply)
    assert reply.finish_reason == finish


@pytest.mark.parametrize(
    ("reason", "written", "limit", "cut"),
    [
        ("length", 41, 512, True),
        ("length", 511, 512, True),
        ("length", 512, 512, False),
        ("length", 0, 512, False),  # The server does not say how many there are.
        ("length", 41, 0, False),
        ("stop", 41, 512, False),
        ("model_length", 0, 0, True),  # Mistral's name of it.
    ],
)
def test_cut_by_the_end_of_the_context(reason: str, written: int, limit: int, cut: bool) -> None:
    assert cut_by_context(reason, written, limit) is cut


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_turn_that_found_no_room_ends_the_episode_and_is_paid_once(field: str) -> None:
    notes = Notes()

    async def run(url: str) -> None:
        sampling = Sampling(max_tokens=50, token_field=field)
        async with recorded(Model("m", url), sampling, notes) as client:
            for _ in range(2):
                with pytest.raises(EpisodeEndedError) as raised:
                    await client.next_turn(TurnRequest([Message("user", "Hello")], task_id="t"))
                assert raised.value.reason == "context_full"

    said = {"content": "So " * 30, "finish_reason": "length", "completion_tokens": 41}
    endpoint = Endpoint(lambda messages: dict(said))
    with serving(endpoint):
        asyncio.run(run(endpoint.url))
    assert (len(notes.kept), endpoint.counts.total()) == (1, 1)


def test_a_passing_fault_says_nothing_of_the_system_message() -> None:
    class RefusedError(Exception):
        def __init__(self, status: int) -> None:
            super().__init__("refused")
            self.status_code = status

    outcomes = iter([RefusedError(400), RefusedError(429), RefusedError(400), "Hi"])

    async def post(request: dict[str, object]) -> str:
        del request
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    asked = {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}
    fallback = SystemFallback()
    with pytest.raises(RefusedError) as failed:
        asyncio.run(fallback.send(asked, post))
    assert failed.value.status_code == 429  # It is sent again.
    assert asyncio.run(fallback.send(asked, post)) == "Hi"
