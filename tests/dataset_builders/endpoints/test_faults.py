"""A client against an endpoint that misbehaves in every way it can."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from dataset_builders.conversation import Message
from dataset_builders.endpoints.client import EndpointClient
from dataset_builders.endpoints.concurrency import AdaptiveLimit
from dataset_builders.endpoints.endpoint import Endpoint as Model
from dataset_builders.endpoints.errors import EpisodeEndedError
from dataset_builders.endpoints.reply import Reply
from dataset_builders.endpoints.requests import Sampling
from dataset_builders.errors import EndpointError
from dataset_builders.rollouts.ledger import Turn
from dataset_builders.rollouts.policy import TurnRequest
from dataset_builders.rollouts.recorded_client import RecordedClient
from tests.support.endpoint import Endpoint, Fault, serving

pytest.importorskip("openai")

HELLO = [Message("user", "Hello")]


class Notes:
    """A ledger in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, Turn] = {}

    async def turns(self, task_id: str, attempt: int, purpose: str = "act") -> Sequence[Turn]:
        return [turn for turn in self.kept.values() if turn.task_id == task_id]

    async def reply(self, key: str) -> Reply | None:
        return self.kept[key].reply if key in self.kept else None

    async def record(self, turn: Turn) -> bool:
        return self.kept.setdefault(turn.key, turn) is turn

    async def end(self, ending: object) -> bool:
        raise AssertionError(ending)


def turn(text: str, task_id: str) -> TurnRequest:
    return TurnRequest([Message("user", text)], task_id=task_id)


@asynccontextmanager
async def recorded(
    model: Model, sampling: Sampling, notes: Notes, *, parks: bool = False
) -> AsyncIterator[RecordedClient]:
    """A client whose replies are paid once."""
    async with EndpointClient(model, AdaptiveLimit(8), parks=parks) as transport:
        yield RecordedClient(transport, sampling, notes)


def ask(
    endpoint: Endpoint,
    *,
    times: int = 1,
    timeout: float = 5.0,
    tries: int = 4,
    patience: float = 60.0,
    sampling: Sampling | None = None,
) -> tuple[list[Reply | BaseException], EndpointClient, float]:
    """Ask so often at once; returns answers, the client and the seconds taken."""

    async def run() -> tuple[list[Reply | BaseException], EndpointClient]:
        model = Model("m", endpoint.url, timeout=timeout, tries=tries, patience=patience)
        model = replace(model, back_off=0.02)
        async with recorded(model, sampling or Sampling(), Notes()) as client:
            asked = [client.next_turn(turn(f"Hello {n}", f"t-{n}")) for n in range(times)]
            return await asyncio.gather(*asked, return_exceptions=True), client.transport

    begun = time.monotonic()
    with serving(endpoint):
        replies, client = asyncio.run(run())
    return replies, client, time.monotonic() - begun


def first(fault: Fault, number: int = 1) -> Callable[[int], Fault | None]:
    return lambda n: fault if n < number else None


def error(message: str, code: str = "") -> bytes:
    return json.dumps({"error": {"message": message, "code": code, "type": "x"}}).encode()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(429, body=error("slow down")), "http_429"),
        (Fault(429, {"Retry-After": "0"}, error("slow down")), "http_429"),
        (Fault(500, body=error("oops")), "http_500"),
        (Fault(502, body=b"<html>bad gateway</html>"), "http_502"),
        (Fault(503, {"Retry-After": "soon"}, b""), "http_503"),
        (Fault(529, body=error("overloaded")), "http_529"),
        (Fault(408, body=error("timeout")), "http_408"),
        (Fault(wait=1.5), "timeout"),
        (Fault(drip=0.05), "timeout"),
        (Fault(drop=True), "connection"),
        (Fault(body=b'{"choices": [{"mess'), "broken_response"),
        (Fault(body=b'{"choices": [{"mess', promised=5000), "connection"),
        (Fault(body=b'{"choices": []}'), "broken_response"),
        (Fault(body=b'{"choices": [{}]}'), "broken_response"),
        (Fault(body=b"[]"), "broken_response"),
        (Fault(body=b"\xff\xfe not text"), "broken_response"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.status}",
)
def test_what_passes_is_tried_again(fault: Fault, reason: str) -> None:
    endpoint = Endpoint(lambda messages: "Hi", first(fault, 2))
    replies, client, _ = ask(endpoint, timeout=0.5 if reason == "timeout" else 10)
    reply = replies[0]
    assert isinstance(reply, Reply), reply
    assert (reply.text, reply.tries) == ("Hi", 3)
    assert client.retries == {reason: 2}
    assert endpoint.counts.total() == 3


def test_a_drip_of_bytes_does_not_outlast_the_timeout() -> None:
    # Every byte comes well within it; the whole answer would take half a minute.
    endpoint = Endpoint(lambda messages: "Hi" * 100, first(Fault(drip=0.06)))
    _, client, seconds = ask(endpoint, timeout=0.5)
    assert client.retries == {"timeout": 1}
    assert seconds < 3


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (401, "Incorrect API key", "invalid_api_key"),
        (403, "no access to this model", ""),
        (404, "the model `m` does not exist", "model_not_found"),
        (429, "You exceeded your current quota", "insufficient_quota"),
        (400, "unknown parameter: 'max_tokens'", "unsupported_parameter"),
    ],
)
def test_what_no_retry_mends_stops_the_run(status: int, message: str, code: str) -> None:
    endpoint = Endpoint(lambda messages: "Hi", lambda n: Fault(status, body=error(message, code)))
    replies, _, _ = ask(endpoint)
    assert isinstance(replies[0], EndpointError)
    assert message in str(replies[0])
    assert "\n" not in str(replies[0])
    assert endpoint.counts.total() == 1


@pytest.mark.parametrize(
    ("status", "message", "reason"),
    [
        (400, "This model's maximum context length is 4096 tokens", "context_full"),
        (400, "request exceeds the available context size", "context_full"),
        (413, "Payload Too Large", "context_full"),
        (422, "`inputs` tokens + `max_new_tokens` must be <= 2048", "context_full"),
        (400, "The response was filtered: content management policy", "refused_by_endpoint"),
        (403, "Input was flagged by moderation", "refused_by_endpoint"),
    ],
)
def test_what_one_episode_is_to_blame_for_ends_it(status: int, message: str, reason: str) -> None:
    endpoint = Endpoint(lambda messages: "Hi", lambda n: Fault(status, body=error(message)))
    replies, _, _ = ask(endpoint)
    assert isinstance(replies[0], EpisodeEndedError)
    assert replies[0].reason == reason
    assert endpoint.counts.total() == 1


def test_a_refused_request_ends_one_episode_once_others_are_answered() -> None:
    async def run(url: str) -> None:
        model = Model("m", url, back_off=0.01, tries=2)
        async with recorded(model, Sampling(), Notes()) as client:
            await client.next_turn(TurnRequest(HELLO, task_id="a"))
            with pytest.raises(EpisodeEndedError, match="odd") as ended:
                await client.next_turn(turn("?", "b"))
            assert ended.value.reason == "bad_request"

    endpoint = Endpoint(
        lambda messages: "Hi", lambda n: Fault(400, body=error("odd message")) if n == 1 else None
    )
    with serving(endpoint):
        asyncio.run(run(endpoint.url))


def test_a_request_that_always_fails_ends_its_episode_and_an_outage_the_run() -> None:
    def fault(number: int) -> Fault | None:
        last = endpoint.requests[-1]["messages"][0]["content"]
        return Fault(500, body=error("cannot")) if last == "Hello 0" else None

    endpoint = Endpoint(lambda messages: "Hi", fault)
    replies, _, _ = ask(endpoint, times=8)
    assert isinstance(replies[0], EpisodeEndedError)
    assert replies[0].reason == "endpoint_error"
    assert all(isinstance(reply, Reply) for reply in replies[1:])

    endpoint = Endpoint(lambda messages: "Hi", lambda n: Fault(500, body=error("down")))
    replies, _, _ = ask(endpoint, times=3)
    assert all(isinstance(reply, EndpointError) for reply in replies)


def test_a_server_that_dies_after_answering_leaves_the_request_open() -> None:
    # Others were answered after this one was sent first, but not since it failed.
    def fault(number: int) -> Fault | None:
        last = endpoint.requests[-1]["messages"][0]["content"]
        return Fault(wait=0.4, drop=True) if last == "slow" or number > 4 else None

    async def run(url: str) -> BaseException | None:
        model = Model("m", url, tries=3, back_off=0.01)
        async with recorded(model, Sampling(), Notes(), parks=True) as client:
            slow = asyncio.ensure_future(client.next_turn(turn("slow", "s")))
            await asyncio.sleep(0.05)
            for number in range(4):
                await client.next_turn(turn(f"{number}", "q"))
            await asyncio.wait([slow], timeout=10)
            return slow.exception()

    endpoint = Endpoint(lambda messages: "Hi", fault)
    with serving(endpoint):
        failure = asyncio.run(run(endpoint.url))
    assert isinstance(failure, EndpointError), failure
    assert "no request answered meanwhile" in str(failure)
