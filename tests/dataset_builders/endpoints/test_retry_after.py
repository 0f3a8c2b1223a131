"""Waits that an endpoint asks for (Retry-After, 429)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from dataset_builders.endpoints.endpoint import Endpoint as Model
from dataset_builders.endpoints.errors import UnprovenError
from dataset_builders.endpoints.refusals import retry_after
from dataset_builders.endpoints.reply import Reply
from dataset_builders.endpoints.requests import Sampling
from dataset_builders.errors import EndpointError
from tests.dataset_builders.endpoints.test_faults import Notes, ask, error, first, recorded, turn
from tests.support.endpoint import Endpoint, Fault, serving

pytest.importorskip("openai")


def later(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("header", ["1", "0.9", "date", "ms"])
def test_retry_after_holds_everybody(header: str) -> None:
    headers = {"retry-after-ms": "900"} if header == "ms" else {"Retry-After": header}
    if header == "date":
        headers = {"Retry-After": later(2)}  # Its seconds are whole: 1 to 2 from now.
    endpoint = Endpoint(lambda messages: "Hi", first(Fault(429, headers, error("wait"))))
    replies, client, seconds = ask(endpoint, times=12)
    assert all(isinstance(reply, Reply) for reply in replies)
    assert client.retries == {"http_429": 1}
    assert 0.8 < seconds < 4


def test_retry_after_nothing_is_no_leave_to_hammer() -> None:
    fault = Fault(429, {"Retry-After": "0"}, error("slow down"))
    replies, _, seconds = ask(Endpoint(lambda messages: "Hi", first(fault, 6)))
    assert isinstance(replies[0], Reply)
    # At least half of 0.02 s, doubled five times.
    assert seconds > 0.6


def test_a_wait_beyond_patience_stops_the_run() -> None:
    endpoint = Endpoint(lambda messages: "Hi", first(Fault(429, {"Retry-After": "7200"})))
    replies, _, seconds = ask(endpoint)
    assert isinstance(replies[0], EndpointError)
    assert "2.0 hours" in str(replies[0])
    assert seconds < 3


def test_endless_429_stops_the_run_when_patience_ends() -> None:
    endpoint = Endpoint(lambda messages: "Hi", lambda n: Fault(429, body=error("slow down")))
    replies, _, seconds = ask(endpoint, tries=2, patience=1.0)
    assert isinstance(replies[0], EndpointError)
    assert endpoint.counts.total() > 3
    assert seconds < 10


def test_retry_after_is_read_in_all_its_forms() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after({"retry-after": "30"}) == 30
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert retry_after({"retry-after": "Thu, 01 Jan 2026 00:01:00 GMT"}, now) == 60
    assert retry_after({"retry-after": "Wed, 31 Dec 2025 00:00:00 GMT"}, now) == 0
    for nonsense in ("", "soon", "-5", "nan", "inf"):
        assert retry_after({"retry-after": nonsense}, now) is None
    assert retry_after({}) is None


def test_one_request_that_is_always_told_to_wait_does_not_hold_the_others() -> None:
    def fault(number: int) -> Fault | None:
        last = endpoint.requests[-1]["messages"][0]["content"]
        return Fault(429, {"Retry-After": "0.1"}, error("wait")) if last == "Hello 0" else None

    async def run(url: str) -> tuple[BaseException | None, int]:
        model = Model("m", url, tries=3, back_off=0.01)
        async with recorded(model, Sampling(), Notes(), parks=True) as client:

            async def others() -> None:
                for number in range(400):
                    await client.next_turn(turn(f"{number}", "o"))
                    await asyncio.sleep(0.005)
                    if held.done():
                        return

            held = asyncio.ensure_future(client.next_turn(turn("Hello 0", "h")))
            await others()
            await asyncio.wait([held], timeout=10)
            return held.exception(), client.transport.limit.cuts

    endpoint = Endpoint(lambda messages: "Hi", fault)
    with serving(endpoint):
        failure, cuts = asyncio.run(run(endpoint.url))
    assert isinstance(failure, UnprovenError)
    assert "others were answered" in str(failure)
    refused = sum("Hello 0" in str(request["messages"]) for request in endpoint.requests)
    assert cuts <= refused - 3
