"""Replies that are unusual but paid for, and what is sent."""

from __future__ import annotations

import asyncio
import json

import pytest

from dataset_builders.endpoints.endpoint import Endpoint as Model
from dataset_builders.endpoints.errors import EpisodeEndedError
from dataset_builders.endpoints.reply import Reply
from dataset_builders.endpoints.requests import Sampling
from dataset_builders.rollouts.policy import TurnRequest
from tests.dataset_builders.endpoints.test_faults import HELLO, Notes, ask, first, recorded
from tests.support.endpoint import Endpoint, Fault, serving

pytest.importorskip("openai")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": None}, ""),
        ({"content": None, "tool_calls": [{"id": "1", "type": "function"}]}, ""),
        ({"content": None, "tool_calls": "nonsense", "finish_reason": "tool_calls"}, ""),
        ({"content": "", "reasoning_content": "long thoughts", "finish_reason": "length"}, ""),
        ({"content": None, "refusal": "I can't help."}, "I can't help."),
        ({"content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]}, "AB"),
        ({"content": "broken \ud800 half"}, "broken \ufffd half"),
    ],
)
def test_odd_turns_are_turns(message: dict[str, object], text: str) -> None:
    replies, client, _ = ask(Endpoint(lambda messages: dict(message)))
    assert isinstance(replies[0], Reply), replies[0]
    assert replies[0].text == text
    assert not client.retries
    assert replies[0].calls == ("tool_calls" in message)


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": "<think>\na\n</think>\n\nb"}, "b", "a"),
        ({"content": "a\n</think>\n\nb"}, "b", "a"),
        ({"content": "<think>a", "finish_reason": "length"}, "", "a"),
        ({"content": "b", "reasoning_content": "a"}, "b", "a"),
        ({"content": "b", "reasoning": "a"}, "b", "a"),
        ({"content": None, "reasoning": "a"}, "", "a"),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "a"}]},
                    {"type": "text", "text": "b"},
                ]
            },
            "b",
            "a",
        ),
    ],
)
def test_thoughts_are_kept_beside_the_turn(
    message: dict[str, object], text: str, reasoning: str
) -> None:
    replies, _, _ = ask(Endpoint(lambda messages: dict(message)))
    assert isinstance(replies[0], Reply), replies[0]
    assert (replies[0].text, replies[0].reasoning) == (text, reasoning)


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ("x", False),
        ([], False),
        ({"prompt_tokens": None}, False),
        ({"prompt_tokens": 7, "completion_tokens": 1, "prompt_tokens_details": 5}, True),
    ],
)
def test_a_turn_with_an_odd_count_of_tokens_is_a_turn(usage: object, counted: bool) -> None:
    body = {"choices": [{"message": {"content": "Hi"}}], "usage": usage}
    endpoint = Endpoint(lambda messages: "Hi", first(Fault(body=json.dumps(body).encode())))
    (reply,), _, _ = ask(endpoint)
    assert isinstance(reply, Reply), reply
    # Paid for: it must not be asked for again.
    assert (reply.text, reply.counted, endpoint.counts.total()) == ("Hi", counted, 1)


def test_a_filtered_turn_is_paid_and_ends_the_episode() -> None:
    endpoint = Endpoint(lambda messages: {"content": "", "finish_reason": "content_filter"})
    replies, _, _ = ask(endpoint)
    assert isinstance(replies[0], EpisodeEndedError)
    assert replies[0].reason == "refused_by_endpoint"


def test_what_was_paid_is_not_asked_again() -> None:
    async def run(url: str) -> None:
        notes = Notes()
        async with recorded(Model("m", url), Sampling(), notes) as client:
            both = [client.next_turn(TurnRequest(HELLO, task_id=name)) for name in ("a", "b")]
            assert len({reply.text for reply in await asyncio.gather(*both)}) == 1
            await client.next_turn(TurnRequest(HELLO, task_id="a"))
            await client.next_turn(TurnRequest(HELLO, task_id="a", attempt=1))

    endpoint = Endpoint(lambda messages: "Hi")
    with serving(endpoint):
        asyncio.run(run(endpoint.url))
    assert endpoint.counts.total() == 2


def test_the_request_says_what_was_set() -> None:
    endpoint = Endpoint(lambda messages: "Hi")
    sampling = Sampling(0.7, 0.9, 5, 33, ("\nObs",), "max_completion_tokens", {"min_p": 0.1})
    ask(endpoint, sampling=sampling)
    assert endpoint.requests[0] == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hello 0"}],
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 5,
        "max_completion_tokens": 33,
        "stop": ["\nObs"],
        "min_p": 0.1,
    }
